# Pascal Context with 59 classes, 504x504 crops: 4998 training images, 5105 validation images. The
# background, 0 in the label files, is ignored.
_base_ = './crops_504x504.py'

dataset_type = 'PascalContextDataset59'
data_root = 'data/VOCdevkit/VOC2010'
validation = dict(
    type=dataset_type,
    data_root=data_root,
    img_dir='JPEGImages',
    ann_dir='SegmentationClassContext',
    split='ImageSets/SegmentationContext/val.txt',
    pipeline={{_base_.test_pipeline}})
data = dict(
    train=dict(
        type=dataset_type,
        data_root=data_root,
        img_dir='JPEGImages',
        ann_dir='SegmentationClassContext',
        split='ImageSets/SegmentationContext/train.txt',
        pipeline={{_base_.train_pipeline_from_one}}),
    val=validation,
    test=validation)
