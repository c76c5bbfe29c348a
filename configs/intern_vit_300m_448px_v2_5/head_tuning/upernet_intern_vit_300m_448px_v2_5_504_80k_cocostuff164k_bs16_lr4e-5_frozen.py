# Head tuning of InternViT-300M-448px-V2_5 on COCO-Stuff 164k.
_base_ = [
    '../../_base_/recipes/head_tuning_300m.py',
    '../../_base_/datasets/coco_stuff164k_504x504.py',
]

model = dict(
    backbone=dict(pretrained='./pretrained/InternViT-300M-448px-V2_5'),
    decode_head=dict(num_classes=171),
    auxiliary_head=dict(num_classes=171))
data = dict(samples_per_gpu=16)  # on one GPU: a batch of 16
