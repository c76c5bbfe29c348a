"""head_tuning_tiny.py on the rooms of transfer.py, with the backbone that is trained there."""
_base_ = ['../configs/tiny/head_tuning_tiny.py', './rooms_data.py']

model = dict(decode_head=dict(num_classes=10), auxiliary_head=dict(num_classes=10))
data = {{_base_.rooms}}
