# linear_intern_vit_6b.py with InternViT-300M, read after its last block.
_base_ = ['./linear_intern_vit_6b.py', './intern_vit_300m.py']

model = dict(
    backbone=dict(out_indices=[23], **{{_base_.backbone_300m}}),
    decode_head=dict(in_channels=1024, channels=1024))
