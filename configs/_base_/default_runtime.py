# Logging, start-up and process settings that every recipe shares.

# Registers the backbone, heads, dataset, transforms and hooks, also when one of mmseg's own
# tools reads the config.
custom_imports = dict(imports=['mmseg_custom'], allow_failed_imports=False)

log_config = dict(
    interval=50,  # iterations
    hooks=[
        dict(type='TextLoggerHook', by_epoch=False),
        dict(type='TensorboardLoggerHook'),
    ])
log_level = 'INFO'

# What a GPU needs; on a machine without one the launcher takes gloo by itself.
dist_params = dict(backend='nccl')
cudnn_benchmark = True

load_from = None
resume_from = None
workflow = [('train', 1)]
