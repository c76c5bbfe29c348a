# Last blocks in small: two of six blocks, of random weights, and the linear head learn.
_base_ = ['./few_shot_tiny.py']

model = dict(backbone=dict(train_last=2))
