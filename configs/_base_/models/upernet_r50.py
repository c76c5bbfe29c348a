# MMSegmentation's UPerNet on ResNet-50, under its name: recipes of the original layout start
# here, put InternViT6B in place of the ResNet and resize the heads. The heads are the same as
# those of our own recipes, so only what a ResNet-50 needs otherwise is written out.
_base_ = './upernet_intern_vit_6b.py'

model = dict(
    type='EncoderDecoder',
    pretrained='open-mmlab://resnet50_v1c',
    backbone=dict(
        _delete_=True,
        type='ResNetV1c',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        dilations=(1, 1, 1, 1),
        strides=(1, 2, 2, 2),
        norm_cfg={{_base_.norm_cfg}},
        norm_eval=False,
        style='pytorch',
        contract_dilation=True),
    decode_head=dict(in_channels=[256, 512, 1024, 2048], channels=512, num_classes=19),
    auxiliary_head=dict(in_channels=1024, channels=256, num_classes=19),
    test_cfg=dict(_delete_=True, mode='whole'))

custom_hooks = []
