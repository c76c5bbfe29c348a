# InternViT-6B with a ViT-Adapter on ADE20K: the adapter and UPerNet are trained.
_base_ = [
    '../../_base_/models/upernet_intern_vit_adapter_6b.py',
    '../../_base_/datasets/ade20k.py',
    '../../_base_/schedules/adamw_80k.py',
    '../../_base_/default_runtime.py',
]

model = dict(backbone=dict(pretrain_size=224))  # nothing reads it, but the original has it
data = dict(samples_per_gpu=2)  # on 8 GPUs: a batch of 16
