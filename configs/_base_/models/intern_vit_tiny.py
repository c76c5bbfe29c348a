# The sizes that turn InternViT-6B into a network of 6 blocks, which two CPU cores train in a
# minute from random weights. linear_intern_vit_tiny.py and upernet_intern_vit_tiny.py use them;
# a recipe says which of the blocks 0..5 it reads.
tiny_backbone = dict(
    pretrained=None,
    pretrain_size=112,
    img_size=112,
    embed_dim=192,
    depth=6,
    num_heads=6,
    init_values=1.0,  # a small layer scale is for weights that are trained already
    drop_path_rate=0.1,
    with_cp=False)  # memory is no concern at this size
tiny_test_cfg = dict(crop_size=(112, 112), stride=(72, 72))
