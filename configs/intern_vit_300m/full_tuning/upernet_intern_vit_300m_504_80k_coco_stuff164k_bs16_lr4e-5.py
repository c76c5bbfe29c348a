# Full tuning on COCO-Stuff 164k; else as upernet_intern_vit_300m_504_80k_ade20k_bs16_lr4e-5.py.
_base_ = [
    '../../_base_/models/upernet_intern_vit_300m.py',
    '../../_base_/datasets/coco_stuff164k_504x504.py',
    '../../_base_/schedules/adamw_80k.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(drop_path_rate=0.1, out_indices=[5, 11, 17, 23]),
    decode_head=dict(num_classes=171),
    auxiliary_head=dict(num_classes=171))
data = dict(samples_per_gpu=8)  # on two GPUs: a batch of 16
optimizer = dict(paramwise_cfg=dict(num_layers=24, layer_decay_rate=0.95))
