# schedule_80k.py in 40000 iterations.
_base_ = './schedule_80k.py'

runner = dict(max_iters=40000)
checkpoint_config = dict(interval=4000)
evaluation = dict(interval=4000)
