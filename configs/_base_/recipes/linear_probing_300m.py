# Linear probing of InternViT-300M.
_base_ = ['./linear_frozen.py', '../models/intern_vit_300m.py']

model = {{_base_.linear_300m}}
optimizer = dict(paramwise_cfg=dict(num_layers=24))
