# The sizes that turn InternViT-6B into InternViT-300M-448px: 24 blocks of width 1024, LayerNorm,
# a bias in q, k and v, no norm of q and k. Its weights are a Hugging Face folder.
backbone_300m = dict(
    pretrained='./pretrained/InternViT-300M-448px',
    pretrain_size=448,
    embed_dim=1024,
    depth=24,
    num_heads=16,
    qkv_bias=True,
    qk_normalization=False,
    norm_type='layer_norm')
