# Full tuning of InternViT-6B on ADE20K, with queries in its last blocks (EoMT).
_base_ = [
    '../../_base_/recipes/eomt_6b.py',
    '../../_base_/datasets/ade20k_504x504.py',
]

data = dict(samples_per_gpu=2)  # on 8 GPUs: a batch of 16
