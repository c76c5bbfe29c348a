# LoRA of InternViT-6B with UPerNet on Cityscapes.
_base_ = [
    '../../_base_/recipes/lora_upernet_6b.py',
    '../../_base_/datasets/cityscapes_504x504.py',
]

data = dict(samples_per_gpu=2)  # the rest of the batch is accumulated
model = dict(decode_head=dict(num_classes=19), auxiliary_head=dict(num_classes=19))
