# Linear probing of InternViT-6B on Cityscapes.
_base_ = [
    '../../_base_/recipes/linear_probing_6b.py',
    '../../_base_/datasets/cityscapes_504x504.py',
]

model = dict(decode_head=dict(num_classes=19))
