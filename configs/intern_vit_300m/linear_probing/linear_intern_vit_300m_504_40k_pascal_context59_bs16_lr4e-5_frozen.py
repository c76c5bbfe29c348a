# Linear probing of InternViT-300M on Pascal Context 59.
_base_ = [
    '../../_base_/recipes/linear_probing_300m.py',
    '../../_base_/datasets/pascal_context59_504x504.py',
]

model = dict(decode_head=dict(num_classes=59))
data = dict(samples_per_gpu=16)  # on one GPU: a batch of 16
runner = dict(max_iters=40000)
