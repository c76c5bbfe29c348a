"""Takes steps of the tiny recipes in the checkout that is the current folder, for tiny_steps.py.

It uses what any checkout of the project has. Each line of its input is the name of a recipe, with a
+ behind it for ``engine.fast`` without compilation, and a number of steps; it answers with the CPU
seconds and the wall-clock seconds of a step, as JSON.
"""
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from mmcv import Config
from mmcv.parallel import DataContainer
from mmcv.runner import IterBasedRunner
from mmseg.utils import get_root_logger

import mmseg_custom
from mmseg_custom.distributed.options import Engine
from mmseg_custom.engine.batch import Batch
from mmseg_custom.engine.build import build_model
from mmseg_custom.engine.config import load_config, resolve_config
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.run import Run
from mmseg_custom.engine.training_runner import build_training_runner

FAST = {'engine.fast': True, 'engine.compile': False}  # compiling takes longer than a tiny run


class Batches:
    """The same batch in every iteration, as mmcv's loader passes it."""

    epoch = 0

    def __init__(self, images: int, side: int, classes: int):
        generator = torch.Generator().manual_seed(1)
        self._batch = dict(
            img=DataContainer([torch.randn(images, 3, side, side, generator=generator)],
                              stack=True),
            gt_semantic_seg=DataContainer([torch.randint(
                classes, (images, 1, side, side), generator=generator)], stack=True),
            img_metas=DataContainer([[dict(flip=False)] * images], cpu_only=True))

    def __next__(self) -> dict:
        return self._batch

    def __len__(self) -> int:
        return 10 ** 4


def build(recipe: str, device: str, folder: str) -> tuple[IterBasedRunner, Batches]:
    """Builds the runner of a tiny recipe, and its batches."""
    settings = FAST if recipe.endswith('+') else {}
    path = f'configs/tiny/{recipe.rstrip("+")}_tiny.py'
    cfg: Config = resolve_config(load_config(path, settings), RunOptions(
        device=device, work_dir=folder))[0]
    cfg.work_dir, cfg.runner.max_iters = folder, 10 ** 6
    cfg.log_config = dict(interval=50, hooks=[dict(type='TextLoggerHook', by_epoch=False)])
    classes, images = cfg.model.decode_head.num_classes, cfg.data.samples_per_gpu
    names = SimpleNamespace(CLASSES=('class',) * classes, PALETTE=[[0, 0, 0]] * classes)
    torch.manual_seed(0)
    run = Run(cfg, RunOptions(device=device), Engine.of(cfg.get('engine')), Batch(images),
              data=dict(train=names), timestamp='benchmark')
    runner = build_training_runner(run, build_model(run), get_root_logger(),
                                   checkpoint_config=None)
    runner.call_hook('before_run')
    runner.call_hook('before_epoch')
    return runner, Batches(images, cfg.model.test_cfg.get('crop_size', (112, 112))[0], classes)


def main(device: str) -> None:
    """Answers until its input ends."""
    if not Path(mmseg_custom.__file__).is_relative_to(Path.cwd()):
        sys.exit(f'{mmseg_custom.__file__} is not of {Path.cwd()}')
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what libraries print is no answer
    torch.set_num_threads(1)
    get_root_logger(log_level=logging.ERROR)
    runners: dict[str, tuple[IterBasedRunner, Batches]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            recipe, count = line.split()
            if recipe not in runners:
                runners[recipe] = build(recipe, device, folder)
            runner, batches = runners[recipe]
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(int(count)):
                runner.train(batches)
            if device == 'cuda':
                torch.cuda.synchronize()
            spent = (time.process_time() - cpu, time.perf_counter() - wall)
            print(json.dumps([seconds / int(count) for seconds in spent]), file=answers, flush=True)


if __name__ == '__main__':
    main(sys.argv[1])
