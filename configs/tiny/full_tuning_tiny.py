# Full tuning in small: backbone, feature pyramid and UPerNet all learn, from random weights.
_base_ = [
    '../_base_/models/upernet_intern_vit_tiny.py',
    '../_base_/datasets/ade_demo_112x112.py',
    '../_base_/schedules/adamw_tiny.py',
    '../_base_/default_runtime.py',
]

# Drop path is against overfitting, which 250 iterations do not reach.
model = dict(backbone=dict(drop_path_rate=0.0))
data = dict(samples_per_gpu=8)
total_batch = 8  # images of an iteration, on any number of processes up to 8
optimizer = dict(lr=5e-3)
runner = dict(max_iters=250)
checkpoint_config = dict(interval=250)
evaluation = dict(interval=250)
