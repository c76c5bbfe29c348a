# Full tuning on Pascal VOC 2012 (aug); else as upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5.py.
_base_ = [
    '../../_base_/models/upernet_intern_vit_6b.py',
    '../../_base_/datasets/voc2012_aug_504x504.py',
    '../../_base_/schedules/adamw_80k.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    decode_head=dict(num_classes=21),
    auxiliary_head=dict(num_classes=21))
data = dict(samples_per_gpu=2)  # on 8 GPUs: a batch of 16
runner = dict(max_iters=40000)
