"""The tiny network with the linear head, as a config of mmcv's, for the task of transfer.py.

Which data, what is trained and for how long come from there.
"""
from runpy import run_path

_base_ = [
    '../configs/_base_/models/linear_intern_vit_tiny.py',
    '../configs/_base_/schedules/adamw_tiny.py',
    '../configs/_base_/default_runtime.py',
]

pipelines = run_path('{{ fileDirname }}/../configs/_base_/datasets/pipelines.py')['pipelines']
train_pipeline, test_pipeline = pipelines((112, 112), (448, 112))
model = dict(
    backbone=dict(drop_path_rate=0.0),  # 0 as in configs/tiny/full_tuning_tiny.py
    decode_head=dict(num_classes=10))
data = dict(
    samples_per_gpu=8,
    workers_per_gpu=1,
    train=dict(type='DescribedDataset', description='', part='train', pipeline=train_pipeline),
    val=dict(type='DescribedDataset', description='', part='val', pipeline=test_pipeline))
evaluation = dict(save_best=None)
log_config = dict(hooks=[dict(type='TextLoggerHook', by_epoch=False)])
