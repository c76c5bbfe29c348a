# Full tuning of InternViT-6B on COCO-Stuff 164k.
_base_ = [
    '../../_base_/recipes/full_tuning_6b.py',
    '../../_base_/datasets/coco_stuff164k_504x504.py',
]

model = dict(decode_head=dict(num_classes=171), auxiliary_head=dict(num_classes=171))
