# coco_stuff164k_504x504.py under its published name, with the published batch.
_base_ = './coco_stuff164k_504x504.py'

data = dict(samples_per_gpu=4)  # recipes set their own
