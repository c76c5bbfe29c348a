# ViT-Adapter in small: a frozen backbone of random weights; the adapter and UPerNet learn.
_base_ = [
    '../_base_/models/upernet_intern_vit_adapter_tiny.py',
    '../_base_/datasets/ade_demo_128x128.py',
    '../_base_/schedules/adamw_tiny.py',
    '../_base_/default_runtime.py',
]
