# The published schedule: AdamW with layer-wise decay of the learning rate, linear warm-up, then
# a straight line down to 0 over 80000 iterations.
optimizer = dict(
    type='AdamW',
    lr=4e-5,
    betas=(0.9, 0.999),
    weight_decay=0.05,
    constructor='CustomLayerDecayOptimizerConstructor',
    paramwise_cfg=dict(num_layers=48, layer_decay_rate=0.95))
optimizer_config = dict()
lr_config = dict(
    policy='poly',
    power=1.0,
    min_lr=0.0,
    warmup='linear',
    warmup_iters=1500,
    warmup_ratio=1e-6,
    by_epoch=False)
runner = dict(type='IterBasedRunner', max_iters=80000)
checkpoint_config = dict(by_epoch=False, interval=1000, max_keep_ckpts=2)
# Named, because 'auto' picks the first metric, which is the pixel accuracy.
evaluation = dict(interval=1000, metric='mIoU', save_best='mIoU', pre_eval=True)
