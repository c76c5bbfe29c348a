# Pascal VOC 2012 with 21 classes, the background among them, 504x504 crops: 1464 training images,
# 1449 validation images.
_base_ = './crops_504x504.py'

dataset_type = 'PascalVOCDataset'
data_root = 'data/VOCdevkit/VOC2012'
validation = dict(
    type=dataset_type,
    data_root=data_root,
    img_dir='JPEGImages',
    ann_dir='SegmentationClass',
    split='ImageSets/Segmentation/val.txt',
    pipeline={{_base_.test_pipeline}})
data = dict(
    train=dict(
        type=dataset_type,
        data_root=data_root,
        img_dir='JPEGImages',
        ann_dir='SegmentationClass',
        split='ImageSets/Segmentation/train.txt',
        pipeline={{_base_.train_pipeline}}),
    val=validation,
    test=validation)
