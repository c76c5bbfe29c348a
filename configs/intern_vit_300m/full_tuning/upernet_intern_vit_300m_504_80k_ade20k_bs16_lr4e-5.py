# Full tuning of InternViT-300M at 504 pixels: backbone, pyramid and UPerNet all learn.
_base_ = [
    '../../_base_/models/upernet_intern_vit_300m.py',
    '../../_base_/datasets/ade20k_504x504.py',
    '../../_base_/schedules/adamw_80k.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        img_size=504, drop_path_rate=0.1, out_indices=[5, 11, 17, 23]),
    test_cfg=dict(crop_size=(504, 504), stride=(322, 322)))
data = dict(samples_per_gpu=8)  # on two GPUs: a batch of 16
optimizer = dict(paramwise_cfg=dict(num_layers=24, layer_decay_rate=0.95))
