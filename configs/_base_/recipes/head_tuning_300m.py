# Head tuning of InternViT-300M.
_base_ = ['./upernet_frozen.py', '../models/intern_vit_300m.py']

model = {{_base_.upernet_300m}}
optimizer = dict(paramwise_cfg=dict(num_layers=24))
