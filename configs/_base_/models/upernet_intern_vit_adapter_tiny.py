# upernet_intern_vit_adapter_6b.py at the sizes of intern_vit_tiny.py, with patches of 16 pixels.
_base_ = './upernet_intern_vit_adapter_6b.py'

model = dict(
    backbone=dict(
        pretrained=None,
        img_size=128,
        embed_dim=192,
        depth=6,
        num_heads=6,
        with_cp=False,  # memory is no concern at this size
        conv_inplane=16,
        deform_num_heads=6,
        interaction_indexes=[[0, 1], [2, 3], [4, 4], [5, 5]]),
    decode_head=dict(in_channels=[192, 192, 192, 192], channels=64),
    auxiliary_head=dict(in_channels=192, channels=64),
    test_cfg=dict(crop_size=(128, 128), stride=(85, 85)))
