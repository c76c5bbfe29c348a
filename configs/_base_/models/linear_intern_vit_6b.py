# InternViT-6B with a linear head: a batch norm and a 1x1 classifier on the feature maps of
# the last block.
_base_ = './intern_vit_6b.py'

model = dict(
    backbone=dict(out_indices=[47]),
    decode_head=dict(
        type='FCNHead',
        with_norm=True,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0.0,
        in_channels=3200,
        channels=3200,
        num_classes=150,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)))
