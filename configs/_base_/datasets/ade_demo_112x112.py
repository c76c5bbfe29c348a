# The built-in demonstration data, in ADE20K's layout and with its 150 classes, at 112x112 crops.
from runpy import run_path

_base_ = './ade20k_504x504.py'

data_root = 'data/ade_demo/ADEChallengeData2016'
crop_size = (112, 112)  # pixels, height and width
img_scale = (448, 112)  # pixels, the most for the long side and for the short side

pipelines = run_path('{{ fileDirname }}/pipelines.py')['pipelines']
train_pipeline, test_pipeline = pipelines(crop_size, img_scale, reduce_zero_label=True)
validation = dict(data_root=data_root, pipeline=test_pipeline)
data = dict(
    workers_per_gpu=1,
    train=dict(data_root=data_root, pipeline=train_pipeline),
    val=validation,
    test=validation)
