# A plain mask decoder on the frozen InternViT-300M, on ADE20K.
_base_ = [
    '../../_base_/recipes/plain_mask_300m.py',
    '../../_base_/datasets/ade20k_504x504.py',
]

data = dict(samples_per_gpu=16)  # on one GPU: a batch of 16
