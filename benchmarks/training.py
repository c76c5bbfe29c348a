"""Training steps of a recipe: the runner, hooks and optimizer of tools/train.py, on loaded crops.

Recipes run at the real size on a GPU. On the CPU the backbone keeps its width and has few blocks.
"""
import gc
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from mmcv import Config
from mmcv.parallel import DataContainer
from mmcv.runner import IterBasedRunner
from mmseg.utils import get_root_logger
from torch import nn

from mmseg_custom.distributed.options import Engine
from mmseg_custom.distributed.parallelize import parallelize, unwrap
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.doctor.memory import MemoryEstimate, estimate
from mmseg_custom.doctor.run_shape import RunShape
from mmseg_custom.engine.batch import Batch
from mmseg_custom.engine.build import build_network, compute_dtype, master_dtype
from mmseg_custom.engine.determinism import settle_determinism, use_deterministic_kernels
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.run import Run
from mmseg_custom.engine.training_runner import build_training_runner

from .context import Context
from .networks import IMAGES, crop_of, fill, random_images, recipe

CPU_BLOCKS = 2


class Batches:
    """The same batch in every iteration, as mmcv's loader passes it."""

    epoch = 0

    def __init__(self, images: int, crop: tuple[int, int], classes: int):
        labels = torch.randint(classes, (images, 1, *crop))
        self._batch = dict(
            img=DataContainer([random_images('cpu', images, 3, *crop)], stack=True),
            gt_semantic_seg=DataContainer([labels], stack=True),
            img_metas=DataContainer([[dict(flip=False)] * images], cpu_only=True))

    def __next__(self) -> dict:
        return self._batch

    def __len__(self) -> int:
        return 10 ** 4


@dataclass(frozen=True)
class Training:
    """A recipe as it is run.

    Attributes:
        cfg: Resolved config.
        runner: Runner after ``before_run``.
        batches: Its batches.
        predicted: What the doctor predicts of a step.
    """
    cfg: Config
    runner: IterBasedRunner
    batches: Batches
    predicted: MemoryEstimate

    def step(self) -> None:
        """Takes one iteration."""
        self.runner.train(self.batches)

    def loss(self) -> float:
        """Returns the loss of the last iteration."""
        return float(self.runner.outputs['log_vars']['loss'])


def config_of(name: str, run: Context, blocks: int | None = None, **settings: object) -> Config:
    """Returns the config of a recipe, with fewer blocks if given, or on the CPU."""
    cfg = recipe(name, run, **settings)
    if blocks is None and not run.on_gpu:
        blocks = CPU_BLOCKS
    if blocks is not None and not run.tiny:
        several = isinstance(cfg.model.decode_head.in_channels, Sequence)
        cfg.model.backbone.update(depth=blocks, out_indices=[
            max(blocks * i // 4, 1) - 1 for i in range(1, 5)] if several else [blocks - 1])
        cfg.optimizer.paramwise_cfg.num_layers = blocks
    return cfg


def predict(cfg: Config, run: Context, recomputing: bool = True) -> tuple[MemoryEstimate, RunShape]:
    """Predicts memory and operations of a step, as the doctor does."""
    memory = torch.cuda.get_device_properties(0).total_memory if run.on_gpu else None
    shape = RunShape(run.device, 1, IMAGES, crop_of(cfg), memory=memory)
    trains_blocks = not cfg.model.backbone.get('freeze_vit', False)
    found, = estimate(cfg, shape, Engine(type='single'), recomputing and trains_blocks)
    return found, shape


def needed_flops(cfg: Config, run: Context) -> float:
    """Counts the operations that a step cannot do without: nothing is computed a second time."""
    return float(sum(predict(cfg, run, recomputing=False)[0].flops.values()))


@contextmanager
def training(cfg: Config, run: Context, predicted: MemoryEstimate) -> Iterator[Training]:
    """Builds a training with random weights, on the device from the start; frees it afterwards."""
    engine = Engine.of(cfg.get('engine'))
    model = build_network(cfg, on_meta=True)
    apply_precision(model, compute_dtype(cfg, model), run.device, master_dtype=master_dtype(cfg))
    model = parallelize(fill(model, run.device), run.device, engine)
    torch.backends.cudnn.benchmark = cfg.get('cudnn_benchmark', False)
    classes = cfg.model.decode_head.num_classes
    with tempfile.TemporaryDirectory() as folder:
        cfg.update(work_dir=folder, log_config=dict(
            interval=50, hooks=[dict(type='TextLoggerHook', by_epoch=False)]))
        names = SimpleNamespace(CLASSES=('class',) * classes, PALETTE=[[0, 0, 0]] * classes)
        settings = Run(cfg, RunOptions(device=run.device), engine, Batch(IMAGES),
                       data=dict(train=names), timestamp='benchmark')
        runner = build_training_runner(settings, model, get_root_logger(), checkpoint_config=None)
        runner.call_hook('before_run')
        runner.call_hook('before_epoch')
        yield Training(cfg, runner, Batches(IMAGES, crop_of(cfg), classes), predicted)
    runner.optimizer.state.clear()
    del model, runner
    free_memory()


def free_memory() -> None:
    """Returns the memory of what is no longer used to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def deterministic(model: nn.Module, device: str) -> Iterator[None]:
    """Lets a model run as with ``--deterministic``; the modes are as before afterwards."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    use_deterministic_kernels(device)
    settle_determinism(unwrap(model))
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        cudnn.benchmark, cudnn.deterministic = before
