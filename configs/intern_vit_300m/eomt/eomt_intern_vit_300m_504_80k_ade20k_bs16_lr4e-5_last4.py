# The last four blocks of InternViT-300M on ADE20K, with queries in them (EoMT).
_base_ = [
    '../../_base_/recipes/last_blocks_eomt_300m.py',
    '../../_base_/datasets/ade20k_504x504.py',
]

data = dict(samples_per_gpu=8)  # the rest of the batch is accumulated
