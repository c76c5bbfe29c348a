# LoRA of InternViT-300M: few_shot_300m.py with adapters in all blocks; else they are frozen.
_base_ = ['./few_shot_300m.py', './lora.py']

model = dict(backbone={{_base_.backbone_lora}})
optimizer = dict(lr={{_base_.lr_lora}})
