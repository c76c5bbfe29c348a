"""plain_mask_tiny.py on the rooms of transfer.py, with the backbone that is trained there."""
from runpy import run_path

_base_ = '../configs/tiny/plain_mask_tiny.py'

pipelines = run_path('{{ fileDirname }}/../configs/_base_/datasets/pipelines.py')['pipelines']
train_pipeline, test_pipeline = pipelines((112, 112), (448, 112))
model = dict(decode_head=dict(
    num_classes=10, num_queries=10, matching='fixed', channels=192, num_heads=6, mlp_ratio=1.0))
data = dict(
    train=dict(_delete_=True, type='DescribedDataset', description='', part='train',
               pipeline=train_pipeline),
    val=dict(_delete_=True, type='DescribedDataset', description='', part='test',
             pipeline=test_pipeline),
    test=dict(_delete_=True, type='DescribedDataset', description='', part='test',
              pipeline=test_pipeline))
