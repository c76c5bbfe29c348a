# Linear probing of InternViT-6B on Pascal VOC 2012 (aug).
_base_ = [
    '../../_base_/recipes/linear_probing_6b.py',
    '../../_base_/datasets/voc2012_aug_504x504.py',
]

model = dict(decode_head=dict(num_classes=21))
runner = dict(max_iters=40000)
