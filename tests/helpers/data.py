"""A tiny data set in ADE20K's layout, and configs on it."""
from collections.abc import Collection
from pathlib import Path

import numpy as np
from helpers.commands import ROOT
from mmcv import Config
from PIL import Image

from mmseg_custom.engine.config import load_config, resolve_config
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.run import Run, prepare_run

# Crops of 56 x 56 pixels, in training and tests.
CROPS = f"""
from runpy import run_path
crop = (56, 56)
train_pipeline, test_pipeline = run_path('{ROOT}/configs/_base_/datasets/pipelines.py')[
    'pipelines'](crop, (224, 56), reduce_zero_label=True)
data['train'].update(pipeline=train_pipeline)
data['val'].update(pipeline=test_pipeline)
data['test'].update(pipeline=test_pipeline)
"""
# Eight iterations of a network of four blocks, with checkpoints to resume from.
EIGHT_ITERATIONS = """
data['samples_per_gpu'] = 2
data['workers_per_gpu'] = 1
optimizer = dict(paramwise_cfg=dict(num_layers=4))
runner = dict(max_iters=8)
checkpoint_config = dict(interval=2, max_keep_ckpts=3)
evaluation = dict(interval=4)
"""
# The linear recipes with a network so small that a test can build it anew.
SMALL_LINEAR = CROPS + """
model = dict(
    backbone=dict(embed_dim=32, depth=2, num_heads=2, img_size=56, out_indices=[1]),
    decode_head=dict(in_channels=32, channels=32), test_cfg=dict(crop_size=crop, stride=crop))
optimizer = dict(paramwise_cfg=dict(num_layers=2))
"""


def draw_sample(rng: np.random.Generator, height: int,
                width: int) -> tuple[Image.Image, Image.Image]:
    """Draws an image of blocks in three colours, each a class, and its labels; the rim is ignored.

    Args:
        rng: Generator of the colours and the noise.
        height: Height in pixels.
        width: Width in pixels.
    """
    grid = rng.integers(0, 3, (height // 28 + 1, width // 28 + 1))
    classes = np.kron(grid, np.ones((28, 28), int))[:height, :width]
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])
    image = colours[classes] + rng.normal(0, 12, (height, width, 3))
    labels = (classes + 1).astype(np.uint8)
    labels[:2] = 0
    return Image.fromarray(image.clip(0, 255).astype(np.uint8)), Image.fromarray(labels)


def draw_data(root: Path, train: int = 6, val: int = 3, seed: int = 0) -> Path:
    """Draws ``root/ADEChallengeData2016`` and returns it."""
    rng = np.random.default_rng(seed)
    base = root / 'ADEChallengeData2016'
    for split, short, count in (('training', 'train', train), ('validation', 'val', val)):
        for kind in ('images', 'annotations'):
            (base / kind / split).mkdir(parents=True)
        for i in range(1, count + 1):
            height, width = rng.integers(60, 130, 2)
            image, labels = draw_sample(rng, int(height), int(width))
            name = f'ADE_{short}_{i:08d}'
            image.save(base / 'images' / split / f'{name}.jpg', quality=92)
            labels.save(base / 'annotations' / split / f'{name}.png')
    return base


def write_config(path: Path, data_root: Path, recipe: str = 'linear_probing_tiny',
                 extra: str = '') -> Path:
    """Writes a tiny config of a few iterations on ``data_root`` and returns its path."""
    path.write_text(f"""
_base_ = ['{ROOT}/configs/tiny/{recipe}.py']
data_root = '{data_root}'
data = dict(samples_per_gpu=2, workers_per_gpu=0, persistent_workers=False,
            train=dict(data_root=data_root),
            val=dict(data_root=data_root), test=dict(data_root=data_root))
runner = dict(max_iters=4)
lr_config = dict(warmup_iters=1)
checkpoint_config = dict(interval=2)
evaluation = dict(interval=4)
log_config = dict(interval=1)
{extra}
""")
    return path


def prepare(config: Path | Config, splits: Collection[str] = ('train', 'val'),
            settings: dict | None = None, **options: object) -> Run:
    """Prepares the run of a config, or of its file, in this process and on the CPU."""
    if not isinstance(config, Config):
        config = load_config(str(config), settings, trains='test' not in splits)
    options = RunOptions(**options)
    cfg, _ = resolve_config(config, options)
    return prepare_run(cfg, options, splits)
