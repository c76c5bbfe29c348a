# ade_demo_112x112.py at 128x128 crops, for patches of 16 pixels.
from runpy import run_path

_base_ = './ade_demo_112x112.py'

crop_size = (128, 128)  # pixels, height and width
img_scale = (512, 128)  # pixels, the most for the long side and for the short side

pipelines = run_path('{{ fileDirname }}/pipelines.py')['pipelines']
train_pipeline, test_pipeline = pipelines(
    crop_size, img_scale, multiple=None, reduce_zero_label=True)
validation = dict(pipeline=test_pipeline)
data = dict(train=dict(pipeline=train_pipeline), val=validation, test=validation)
