# schedule_80k.py in 10000 iterations.
_base_ = './schedule_80k.py'

runner = dict(max_iters=10000)
checkpoint_config = dict(interval=1000)
evaluation = dict(interval=1000)
