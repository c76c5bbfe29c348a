# ade20k_504x504.py at 512x512 crops, for backbones with a patch of 16 pixels.
from runpy import run_path

_base_ = './ade20k_504x504.py'

crop_size = (512, 512)  # pixels, height and width
img_scale = (2048, 512)  # pixels, the most for the long side and for the short side

pipelines = run_path('{{ fileDirname }}/pipelines.py')['pipelines']
train_pipeline, test_pipeline = pipelines(crop_size, img_scale, multiple=16,
                                          reduce_zero_label=True)
validation = dict(pipeline=test_pipeline)
data = dict(train=dict(pipeline=train_pipeline), val=validation, test=validation)
