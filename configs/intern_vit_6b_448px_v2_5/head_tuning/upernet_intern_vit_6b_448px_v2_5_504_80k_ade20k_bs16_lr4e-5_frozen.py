# Head tuning of InternViT-6B-448px-V2_5 on ADE20K.
_base_ = [
    '../../_base_/recipes/head_tuning_6b_448px.py',
    '../../_base_/datasets/ade20k_504x504.py',
]

model = dict(backbone=dict(pretrained='./pretrained/intern_vit_6b_448px_v2_5.pth'))
data = dict(samples_per_gpu=2)  # on 8 GPUs: a batch of 16
