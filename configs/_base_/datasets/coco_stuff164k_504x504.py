# COCO-Stuff 164k with 171 classes, 504x504 crops: 118287 training images, 5000 validation images.
_base_ = './crops_504x504.py'

dataset_type = 'COCOStuffDataset'
data_root = 'data/coco_stuff164k'
validation = dict(
    type=dataset_type,
    data_root=data_root,
    img_dir='images/val2017',
    ann_dir='annotations/val2017',
    pipeline={{_base_.test_pipeline}})
data = dict(
    train=dict(
        type=dataset_type,
        data_root=data_root,
        img_dir='images/train2017',
        ann_dir='annotations/train2017',
        pipeline={{_base_.train_pipeline}}),
    val=validation,
    test=validation)
