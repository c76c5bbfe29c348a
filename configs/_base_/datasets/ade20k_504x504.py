# ADE20K with 150 classes, 504x504 crops: all 20210 training images, 2000 validation images.
_base_ = './crops_504x504.py'

dataset_type = 'ADE20KDataset'
data_root = 'data/ade/ADEChallengeData2016'
train_pipeline = {{_base_.train_pipeline_from_one}}
validation = dict(
    type=dataset_type,
    data_root=data_root,
    img_dir='images/validation',
    ann_dir='annotations/validation',
    pipeline={{_base_.test_pipeline}})
data = dict(
    samples_per_gpu=4,  # the published recipes take 2
    train=dict(
        type=dataset_type,
        data_root=data_root,
        img_dir='images/training',
        ann_dir='annotations/training',
        pipeline=train_pipeline),
    val=validation,
    test=validation)
