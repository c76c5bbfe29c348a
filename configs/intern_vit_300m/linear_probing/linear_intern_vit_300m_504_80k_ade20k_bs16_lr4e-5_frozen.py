# Linear probing of InternViT-300M on ADE20K at 504 pixels.
_base_ = [
    '../../_base_/recipes/linear_probing_300m.py',
    '../../_base_/datasets/ade20k_504x504.py',
]

data = dict(samples_per_gpu=16)  # on one GPU: a batch of 16
