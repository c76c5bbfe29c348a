"""The rooms of transfer.py, as data of the configs of heads."""
from runpy import run_path

pipelines = run_path('{{ fileDirname }}/../configs/_base_/datasets/pipelines.py')['pipelines']
rooms_train, rooms_test = pipelines((112, 112), (448, 112))
rooms = dict(
    train=dict(_delete_=True, type='DescribedDataset', description='', part='train',
               pipeline=rooms_train),
    val=dict(_delete_=True, type='DescribedDataset', description='', part='test',
             pipeline=rooms_test),
    test=dict(_delete_=True, type='DescribedDataset', description='', part='test',
              pipeline=rooms_test))
