# Last blocks of InternViT-300M: full_tuning_300m.py with the other blocks frozen.
_base_ = ['./full_tuning_300m.py', './last_blocks.py']

model = dict(backbone={{_base_.backbone_last}})
