# Last blocks of InternViT-300M with UPerNet on ADE20K.
_base_ = [
    '../../_base_/recipes/last_blocks_upernet_300m.py',
    '../../_base_/datasets/ade20k_504x504.py',
]

data = dict(samples_per_gpu=8)  # the rest of the batch is accumulated
