# Full tuning of InternViT-6B-448px-V1-5 on ADE20K.
_base_ = [
    '../../_base_/recipes/full_tuning_6b_448px.py',
    '../../_base_/datasets/ade20k_504x504.py',
]

model = dict(backbone=dict(pretrained='./pretrained/intern_vit_6b_448px_v1_5.pth'))
data = dict(samples_per_gpu=2)  # on 8 GPUs: a batch of 16
