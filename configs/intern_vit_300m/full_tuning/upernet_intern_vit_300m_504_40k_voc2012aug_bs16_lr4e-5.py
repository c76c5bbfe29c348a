# Full tuning of InternViT-300M on Pascal VOC 2012 (aug).
_base_ = [
    '../../_base_/recipes/full_tuning_300m.py',
    '../../_base_/datasets/voc2012_aug_504x504.py',
]

model = dict(decode_head=dict(num_classes=21), auxiliary_head=dict(num_classes=21))
data = dict(samples_per_gpu=8)  # on two GPUs: a batch of 16
runner = dict(max_iters=40000)
