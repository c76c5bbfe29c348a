# Full tuning of InternViT-300M on Cityscapes.
_base_ = [
    '../../_base_/recipes/full_tuning_300m.py',
    '../../_base_/datasets/cityscapes_504x504.py',
]

model = dict(decode_head=dict(num_classes=19), auxiliary_head=dict(num_classes=19))
data = dict(samples_per_gpu=8)  # on two GPUs: a batch of 16
