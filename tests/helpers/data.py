"""A minute data set in ADE20K's layout, and configs on it."""
from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image

from mmseg_custom.engine.config import load_config, resolve_config
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.run import Run, prepare_run

ROOT = Path(__file__).resolve().parents[2]


def draw_sample(rng: np.random.Generator, height: int,
                width: int) -> tuple[Image.Image, Image.Image]:
    """Blocks of three colours, each a class, with an ignored rim."""
    grid = rng.integers(0, 3, (height // 28 + 1, width // 28 + 1))
    classes = np.kron(grid, np.ones((28, 28), int))[:height, :width]
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])
    image = colours[classes] + rng.normal(0, 12, (height, width, 3))
    labels = (classes + 1).astype(np.uint8)
    labels[:2] = 0
    return Image.fromarray(image.clip(0, 255).astype(np.uint8)), Image.fromarray(labels)


def draw_data(root: Path, train: int = 6, val: int = 3) -> Path:
    """Draws ``root/ADEChallengeData2016`` and returns it."""
    rng = np.random.default_rng(0)
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


def prepare(path: Path, splits: Collection[str] = ('train', 'val'), settings: dict | None = None,
            **options: object) -> Run:
    """Prepares the run of a config in this process, on the CPU."""
    options = RunOptions(**options)
    cfg, _ = resolve_config(load_config(str(path), settings), options)
    return prepare_run(cfg, options, splits)
