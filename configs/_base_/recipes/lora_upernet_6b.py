# LoRA of InternViT-6B: full_tuning_6b.py with adapters in all blocks; else they are frozen.
_base_ = ['./full_tuning_6b.py', './lora.py']

model = dict(backbone={{_base_.backbone_lora}})
optimizer = dict(lr={{_base_.lr_lora}})
