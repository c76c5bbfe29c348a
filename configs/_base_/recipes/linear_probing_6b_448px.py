# Linear probing of the releases of InternViT-6B at 448 pixels, on the feature maps of the last of
# their 45 blocks. The file of V1-0 holds 48 blocks; the last three are left aside, as published.
_base_ = './linear_probing_6b.py'

model = dict(backbone=dict(
    pretrain_size=448,  # nothing reads it, but the published configs have it
    depth=45))
optimizer = dict(paramwise_cfg=dict(num_layers=45))
