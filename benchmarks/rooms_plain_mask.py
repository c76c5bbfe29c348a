"""plain_mask_tiny.py on the rooms of transfer.py, with the backbone that is trained there."""
_base_ = ['../configs/tiny/plain_mask_tiny.py', './rooms_data.py']

model = dict(decode_head=dict(num_classes=10, num_queries=10))
data = {{_base_.rooms}}
