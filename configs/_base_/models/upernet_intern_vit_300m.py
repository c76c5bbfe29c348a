# upernet_intern_vit_6b.py at the sizes of intern_vit_300m.py.
_base_ = ['./upernet_intern_vit_6b.py', './intern_vit_300m.py']

model = dict(
    backbone={{_base_.backbone_300m}},
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024], channels=512),
    auxiliary_head=dict(in_channels=1024, channels=256))
