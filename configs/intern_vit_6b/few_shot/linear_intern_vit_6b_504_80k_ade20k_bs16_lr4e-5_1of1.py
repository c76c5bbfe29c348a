# Few-shot tuning on all of ADE20K, the end of the series.
_base_ = [
    '../../_base_/recipes/few_shot_6b.py',
    '../../_base_/datasets/ade20k_504x504.py',
]

data = dict(samples_per_gpu=2)  # on 8 GPUs: a batch of 16
