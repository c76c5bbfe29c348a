# Last blocks of InternViT-300M with UPerNet on COCO-Stuff 164k.
_base_ = [
    '../../_base_/recipes/last_blocks_upernet_300m.py',
    '../../_base_/datasets/coco_stuff164k_504x504.py',
]

data = dict(samples_per_gpu=8)  # the rest of the batch is accumulated
model = dict(decode_head=dict(num_classes=171), auxiliary_head=dict(num_classes=171))
