# Full tuning of InternViT-300M on ADE20K, with queries in its last blocks (EoMT).
_base_ = [
    '../../_base_/recipes/eomt_300m.py',
    '../../_base_/datasets/ade20k_504x504.py',
]

data = dict(samples_per_gpu=8)  # on two GPUs: a batch of 16
