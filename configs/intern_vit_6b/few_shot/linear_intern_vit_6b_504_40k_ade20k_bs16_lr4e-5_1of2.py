# Few-shot tuning on 1/2 of ADE20K: backbone and linear head, 40000 iterations.
_base_ = [
    '../../_base_/models/linear_intern_vit_6b.py',
    '../../_base_/datasets/ade20k_504x504_1of2.py',
    '../../_base_/schedules/adamw_80k.py',
    '../../_base_/default_runtime.py',
]

data = dict(samples_per_gpu=2)  # on 8 GPUs: a batch of 16
runner = dict(max_iters=40000)
lr_config = dict(warmup_iters=800)
