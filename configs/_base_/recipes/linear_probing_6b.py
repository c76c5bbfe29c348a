# Linear probing of InternViT-6B, on the feature maps of block 44 of 0..47.
_base_ = './linear_frozen.py'

model = dict(backbone=dict(
    pretrain_size=224,  # nothing reads it, but the original has it
    out_indices=[44]))
