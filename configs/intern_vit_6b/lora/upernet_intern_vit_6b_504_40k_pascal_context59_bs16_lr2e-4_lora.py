# LoRA of InternViT-6B with UPerNet on Pascal Context 59.
_base_ = [
    '../../_base_/recipes/lora_upernet_6b.py',
    '../../_base_/datasets/pascal_context59_504x504.py',
]

data = dict(samples_per_gpu=2)  # the rest of the batch is accumulated
model = dict(decode_head=dict(num_classes=59), auxiliary_head=dict(num_classes=59))
runner = dict(max_iters=40000)
