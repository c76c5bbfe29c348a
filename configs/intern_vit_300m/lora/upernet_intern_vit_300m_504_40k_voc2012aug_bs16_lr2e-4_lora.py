# LoRA of InternViT-300M with UPerNet on VOC 2012 aug.
_base_ = [
    '../../_base_/recipes/lora_upernet_300m.py',
    '../../_base_/datasets/voc2012_aug_504x504.py',
]

data = dict(samples_per_gpu=8)  # the rest of the batch is accumulated
model = dict(decode_head=dict(num_classes=21), auxiliary_head=dict(num_classes=21))
runner = dict(max_iters=40000)
