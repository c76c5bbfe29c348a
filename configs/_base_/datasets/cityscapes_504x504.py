# Cityscapes with 19 classes, 504x504 crops: 2975 training images, 500 validation images, all of
# 2048x1024 pixels, and tested at that size.
from runpy import run_path

_base_ = './crops_504x504.py'

dataset_type = 'CityscapesDataset'
data_root = 'data/cityscapes'
img_scale = (2048, 1024)  # pixels, the most for the long side and for the short side

pipelines = run_path('{{ fileDirname }}/pipelines.py')['pipelines']
train_pipeline, test_pipeline = pipelines({{_base_.crop_size}}, img_scale, setr_resize=False)
validation = dict(
    type=dataset_type,
    data_root=data_root,
    img_dir='leftImg8bit/val',
    ann_dir='gtFine/val',
    pipeline=test_pipeline)
data = dict(
    train=dict(
        type=dataset_type,
        data_root=data_root,
        img_dir='leftImg8bit/train',
        ann_dir='gtFine/train',
        pipeline=train_pipeline),
    val=validation,
    test=validation)
