# ADE20K, trained on 1 of 2 training images.
_base_ = './ade20k_504x504_subset.py'

data = dict(train=dict(max_image_num=20210 // 2))
