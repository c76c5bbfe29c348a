# Pipelines at 504x504 crops. The data sets say which of the two training pipelines fits their
# labels.
from runpy import run_path

_base_ = './pipelines.py'

crop_size = (504, 504)  # pixels, height and width
img_scale = (2016, 504)  # pixels, the most for the long side and for the short side

pipelines = run_path('{{ fileDirname }}/pipelines.py')['pipelines']
# For labels 0..K-1, and 255 for what is ignored.
train_pipeline, test_pipeline = pipelines(crop_size, img_scale)
# For labels 1..K, and 0 for what is ignored.
train_pipeline_from_one = pipelines(crop_size, img_scale, reduce_zero_label=True)[0]

data = dict(samples_per_gpu=2, workers_per_gpu=4)  # on 8 GPUs: a batch of 16
