# schedule_80k.py in 20000 iterations.
_base_ = './schedule_80k.py'

runner = dict(max_iters=20000)
checkpoint_config = dict(interval=2000)
evaluation = dict(interval=2000)
