# Last blocks of InternViT-300M: few_shot_300m.py with the other blocks frozen.
_base_ = ['./few_shot_300m.py', './last_blocks.py']

model = dict(backbone={{_base_.backbone_last}})
