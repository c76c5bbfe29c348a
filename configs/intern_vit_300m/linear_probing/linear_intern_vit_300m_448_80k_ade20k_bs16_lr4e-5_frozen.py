# Linear probing of InternViT-300M on ADE20K at 448 pixels.
_base_ = [
    '../../_base_/recipes/linear_probing_300m.py',
    '../../_base_/datasets/ade20k_448x448.py',
]

model = {{_base_.model_448}}
data = dict(samples_per_gpu=16)  # on one GPU: a batch of 16
