# LoRA of InternViT-6B with the linear head on 1/16 of ADE20K.
_base_ = [
    '../../_base_/recipes/lora_few_shot_6b.py',
    '../../_base_/datasets/ade20k_504x504_1of16.py',
]

data = dict(samples_per_gpu=2)  # the rest of the batch is accumulated
runner = dict(max_iters=5000)
lr_config = dict(warmup_iters=100)
