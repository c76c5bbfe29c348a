# Linear probing of InternViT-6B on Pascal Context 59.
_base_ = [
    '../../_base_/recipes/linear_probing_6b.py',
    '../../_base_/datasets/pascal_context59_504x504.py',
]

model = dict(decode_head=dict(num_classes=59))
runner = dict(max_iters=40000)
