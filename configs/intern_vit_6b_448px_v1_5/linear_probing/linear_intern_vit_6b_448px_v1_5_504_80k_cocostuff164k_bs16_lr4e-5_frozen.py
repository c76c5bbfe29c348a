# Linear probing of InternViT-6B-448px-V1-5 on COCO-Stuff 164k.
_base_ = [
    '../../_base_/recipes/linear_probing_6b_448px.py',
    '../../_base_/datasets/coco_stuff164k_504x504.py',
]

model = dict(
    backbone=dict(pretrained='./pretrained/intern_vit_6b_448px_v1_5.pth'),
    decode_head=dict(num_classes=171))
