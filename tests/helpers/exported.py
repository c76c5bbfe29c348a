"""Checkpoints of tiny segmentors with random weights, and the labels that tests give them."""
from pathlib import Path

import numpy as np
import torch
from helpers.data import draw_sample, prepare
from torch import nn

from mmseg_custom.checkpoint import save_checkpoint
from mmseg_custom.engine.build import build_network, init_heads
from mmseg_custom.engine.config import load_config, resolve_config
from mmseg_custom.engine.export import export_folder
from mmseg_custom.engine.loaders import build_test_loader
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.predict import predict
from mmseg_custom.engine.test import build_test_model

SIZES = ((64, 96), (111, 87), (45, 150), (200, 233), (113, 112))  # pixels, height and width


def draw_validation(root: Path) -> Path:
    """Draws ``root/ADEChallengeData2016`` with validation images of ``SIZES``; returns it."""
    base, rng = root / 'ADEChallengeData2016', np.random.default_rng(0)
    for kind in ('images', 'annotations'):
        for split in ('training', 'validation'):
            (base / kind / split).mkdir(parents=True)
    for i, (height, width) in enumerate(SIZES):
        image, labels = draw_sample(rng, height, width)
        image.save(base / f'images/validation/ADE_val_{i}.jpg', quality=92)
        labels.save(base / f'annotations/validation/ADE_val_{i}.png')
    return base


def write_checkpoint(config: Path | str, path: Path, settings: dict | None = None) -> None:
    """Writes a checkpoint of a config's network with random weights, adapters among them."""
    torch.manual_seed(0)
    model = build_network(load_config(str(config), settings), pretrained=True)
    init_heads(model)
    randomize(model)
    save_checkpoint(model, str(path), meta=dict(iter=1))


@torch.no_grad()
def randomize(model: nn.Module) -> None:
    """Draws what is constant in a new network, so that its labels depend on everything."""
    for name, parameter in model.named_parameters():
        if 'lora_B' in name or 'magnitude' in name:
            parameter += 0.02 * torch.randn_like(parameter)
        elif 'conv_seg' in name:
            parameter.normal_(std=0.5)
    for name, buffer in model.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_(std=0.1)
        elif name.endswith('running_var'):
            buffer.uniform_(0.5, 2)


def export(config: Path | str, checkpoint: Path | str, target: Path, settings: dict | None = None,
           aug_test: bool = False, **options: object) -> None:
    """Exports a checkpoint as tools/export.py does."""
    run = RunOptions(checkpoint=str(checkpoint), owns_work_dir=False, aug_test=aug_test)
    cfg, _ = resolve_config(load_config(str(config), settings, trains=False), run)
    export_folder(cfg, str(checkpoint), str(target), **options)


def labels_of_test(config: Path | str, checkpoint: Path, work_dir: Path,
                  settings: dict | None = None, **options: object
                  ) -> tuple[list[str], list[np.ndarray]]:
    """Returns the paths of the test images, and the label maps that tools/test.py computes."""
    run = prepare(config, ('test',), settings, checkpoint=str(checkpoint), owns_work_dir=False,
                  work_dir=str(work_dir), **options)
    found = predict(build_test_model(run), build_test_loader(run, 'test'), run.device)
    data = run.data['test']
    return ([f'{data.img_dir}/{info["filename"]}' for info in data.img_infos], found.in_order())
