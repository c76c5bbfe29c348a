# Full tuning: backbone, feature pyramid and UPerNet all learn.
_base_ = [
    '../../_base_/models/upernet_intern_vit_6b.py',
    '../../_base_/datasets/ade20k_504x504.py',
    '../../_base_/schedules/adamw_80k.py',
    '../../_base_/default_runtime.py',
]

data = dict(samples_per_gpu=2)  # on 8 GPUs: a batch of 16
