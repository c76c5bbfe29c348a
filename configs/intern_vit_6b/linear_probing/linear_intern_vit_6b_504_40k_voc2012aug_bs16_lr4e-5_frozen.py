# Linear probing on Pascal VOC 2012 (aug); else as
# linear_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen.py.
_base_ = [
    '../../_base_/models/linear_intern_vit_6b.py',
    '../../_base_/datasets/voc2012_aug_504x504.py',
    '../../_base_/schedules/adamw_80k.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(freeze_vit=True, drop_path_rate=0.0, out_indices=[44]),
    decode_head=dict(num_classes=21))
data = dict(samples_per_gpu=2)  # on 8 GPUs: a batch of 16
optimizer = dict(weight_decay=0.0, paramwise_cfg=dict(layer_decay_rate=1.0))
runner = dict(max_iters=40000)
