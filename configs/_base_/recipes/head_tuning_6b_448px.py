# Head tuning of the releases of InternViT-6B at 448 pixels, of 45 blocks. The file of V1-0 holds 48
# blocks; the last three are left aside, as published.
_base_ = './head_tuning_6b.py'

model = dict(backbone=dict(
    pretrain_size=448,  # nothing reads it, but the published configs have it
    depth=45,
    out_indices=[11, 22, 33, 44]))
optimizer = dict(paramwise_cfg=dict(num_layers=45))
