# Full tuning of InternViT-6B on Cityscapes.
_base_ = [
    '../../_base_/recipes/full_tuning_6b.py',
    '../../_base_/datasets/cityscapes_504x504.py',
]

model = dict(decode_head=dict(num_classes=19), auxiliary_head=dict(num_classes=19))
