# Last blocks of InternViT-6B: full_tuning_6b.py with the other blocks frozen.
_base_ = ['./full_tuning_6b.py', './last_blocks.py']

model = dict(backbone={{_base_.backbone_last}})
