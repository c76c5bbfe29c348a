# A plain mask decoder on the frozen InternViT-6B. Batch, weight decay, clipping of gradients and
# the power of the schedule are those published for PMT on ADE20K, for 20k iterations at 2e-4
# (image/main.py, pmt_l_512.yaml of tue-mps/pmt); the learning rate is EoMT's for 40k
# (tue-mps/eomt), for four times PMT's iterations.
_base_ = [
    '../models/plain_mask_intern_vit_6b.py',
    '../schedules/adamw_80k.py',
    '../default_runtime.py',
]

model = dict(backbone=dict(freeze_vit=True, drop_path_rate=0.0, pretrain_size=224))
optimizer = dict(lr=1e-4, paramwise_cfg=dict(layer_decay_rate=1.0))
optimizer_config = dict(grad_clip=dict(max_norm=0.01, norm_type=2))
lr_config = dict(power=0.9)
