# Last blocks of InternViT-6B with the linear head on all of ADE20K.
_base_ = [
    '../../_base_/recipes/last_blocks_few_shot_6b.py',
    '../../_base_/datasets/ade20k_504x504.py',
]

data = dict(samples_per_gpu=2)  # the rest of the batch is accumulated
