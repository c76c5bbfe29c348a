# voc2012_504x504.py with the labels of SBD beside those of VOC, as most published results on VOC
# have them: 10582 training images. Where both have labels of an image, VOC's are taken.
_base_ = './voc2012_504x504.py'

data = dict(
    train=dict(
        ann_dir=['SegmentationClass', 'SegmentationClassAug'],
        split=['ImageSets/Segmentation/train.txt', 'ImageSets/Segmentation/aug.txt']))
