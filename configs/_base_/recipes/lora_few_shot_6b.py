# LoRA of InternViT-6B: few_shot_6b.py with adapters in all blocks; else they are frozen.
_base_ = ['./few_shot_6b.py', './lora.py']

model = dict(backbone={{_base_.backbone_lora}})
optimizer = dict(lr={{_base_.lr_lora}})
