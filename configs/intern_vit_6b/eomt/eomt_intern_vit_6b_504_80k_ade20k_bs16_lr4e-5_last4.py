# The last four blocks of InternViT-6B on ADE20K, with queries in them (EoMT).
_base_ = [
    '../../_base_/recipes/last_blocks_eomt_6b.py',
    '../../_base_/datasets/ade20k_504x504.py',
]

data = dict(samples_per_gpu=2)  # the rest of the batch is accumulated
