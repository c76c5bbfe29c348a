# Linear probing of InternViT-300M at 504 pixels: the linear head alone learns.
_base_ = [
    '../../_base_/models/linear_intern_vit_300m.py',
    '../../_base_/datasets/ade20k_504x504.py',
    '../../_base_/schedules/adamw_80k.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        img_size=504, freeze_vit=True, drop_path_rate=0.0, out_indices=[23]),
    test_cfg=dict(crop_size=(504, 504), stride=(322, 322)))
data = dict(samples_per_gpu=16)  # on one GPU: a batch of 16
optimizer = dict(
    weight_decay=0.0, paramwise_cfg=dict(num_layers=24, layer_decay_rate=1.0))
