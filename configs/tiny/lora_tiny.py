# LoRA in small: adapters in a frozen backbone of random weights, and the linear head, learn.
_base_ = ['./few_shot_tiny.py']

model = dict(backbone=dict(adapt=dict(type='lora', r=8, alpha=16), drop_path_rate=0.1))
optimizer = dict(lr=5e-3)  # five times that of few_shot_tiny.py, as in the recipes
