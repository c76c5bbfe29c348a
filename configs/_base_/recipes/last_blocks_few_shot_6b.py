# Last blocks of InternViT-6B: few_shot_6b.py with the other blocks frozen.
_base_ = ['./few_shot_6b.py', './last_blocks.py']

model = dict(backbone={{_base_.backbone_last}})
