# upernet_intern_vit_6b.py with InternViT-300M: a map after every sixth block.
_base_ = ['./upernet_intern_vit_6b.py', './intern_vit_300m.py']

model = dict(
    backbone=dict(out_indices=[5, 11, 17, 23], **{{_base_.backbone_300m}}),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024], channels=512),
    auxiliary_head=dict(in_channels=1024, channels=256))
