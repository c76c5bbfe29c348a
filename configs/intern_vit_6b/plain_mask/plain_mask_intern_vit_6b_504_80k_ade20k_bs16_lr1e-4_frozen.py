# A plain mask decoder on the frozen InternViT-6B, on ADE20K.
_base_ = [
    '../../_base_/recipes/plain_mask_6b.py',
    '../../_base_/datasets/ade20k_504x504.py',
]

data = dict(samples_per_gpu=2)  # on 8 GPUs: a batch of 16
