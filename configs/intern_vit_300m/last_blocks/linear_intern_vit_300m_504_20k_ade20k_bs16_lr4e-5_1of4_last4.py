# Last blocks of InternViT-300M with the linear head on 1/4 of ADE20K.
_base_ = [
    '../../_base_/recipes/last_blocks_few_shot_300m.py',
    '../../_base_/datasets/ade20k_504x504_1of4.py',
]

data = dict(samples_per_gpu=8)  # the rest of the batch is accumulated
runner = dict(max_iters=20000)
lr_config = dict(warmup_iters=400)
