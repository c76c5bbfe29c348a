# Head tuning of InternViT-6B.
_base_ = './upernet_frozen.py'

model = dict(backbone=dict(pretrain_size=224))  # nothing reads it, but the original has it
