# Linear probing: a frozen backbone, read after block 44 of 0..47; the linear head alone learns.
_base_ = [
    '../../_base_/models/linear_intern_vit_6b.py',
    '../../_base_/datasets/ade20k_504x504.py',
    '../../_base_/schedules/adamw_80k.py',
    '../../_base_/default_runtime.py',
]

model = dict(backbone=dict(freeze_vit=True, drop_path_rate=0.0, out_indices=[44]))
data = dict(samples_per_gpu=2)  # on 8 GPUs: a batch of 16
optimizer = dict(weight_decay=0.0, paramwise_cfg=dict(layer_decay_rate=1.0))
