# ade20k_504x504.py at 448x448 crops, the size that InternViT-300M was trained at.
from runpy import run_path

_base_ = './ade20k_504x504.py'

crop_size = (448, 448)  # pixels, height and width
img_scale = (1792, 448)  # pixels, the most for the long side and for the short side

pipelines = run_path('{{ fileDirname }}/pipelines.py')['pipelines']
train_pipeline, test_pipeline = pipelines(crop_size, img_scale, reduce_zero_label=True)
validation = dict(pipeline=test_pipeline)
data = dict(train=dict(pipeline=train_pipeline), val=validation, test=validation)
