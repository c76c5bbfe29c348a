# adamw_80k.py for the tiny network: 150 iterations, and a learning rate for random weights.
_base_ = './adamw_80k.py'

optimizer = dict(lr=1e-3, paramwise_cfg=dict(num_layers=6))
lr_config = dict(warmup_iters=20)
runner = dict(max_iters=150)
checkpoint_config = dict(interval=150)
evaluation = dict(interval=150)
