# Few-shot tuning in small: backbone and linear head on a quarter of the demonstration images.
_base_ = [
    '../_base_/models/linear_intern_vit_tiny.py',
    '../_base_/datasets/ade_demo_112x112.py',
    '../_base_/schedules/adamw_tiny.py',
    '../_base_/default_runtime.py',
]

data = dict(train=dict(max_image_num=160 // 4))
