# Full tuning of InternViT-300M-448px-V2_5 on ADE20K.
_base_ = [
    '../../_base_/recipes/full_tuning_300m.py',
    '../../_base_/datasets/ade20k_504x504.py',
]

model = dict(backbone=dict(pretrained='./pretrained/InternViT-300M-448px-V2_5'))
data = dict(samples_per_gpu=8)  # on two GPUs: a batch of 16
