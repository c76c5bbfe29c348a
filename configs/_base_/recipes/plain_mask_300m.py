# A plain mask decoder on the frozen InternViT-300M.
_base_ = ['./plain_mask_6b.py', '../models/intern_vit_300m.py']

model = {{_base_.plain_mask_300m}}
optimizer = dict(paramwise_cfg=dict(num_layers=24))
