# linear_intern_vit_6b.py at the sizes of intern_vit_tiny.py.
_base_ = ['./linear_intern_vit_6b.py', './intern_vit_tiny.py']

model = dict(
    backbone={{_base_.tiny_backbone}},
    decode_head=dict(in_channels=192, channels=192),
    test_cfg={{_base_.tiny_test_cfg}})
