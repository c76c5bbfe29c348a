"""Training steps of a recipe: the runner, hooks and optimizer of tools/train.py, on loaded crops.

Recipes run at the real size on a GPU. On the CPU the backbone keeps its width and has few blocks.
"""
import gc
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import repeat
from types import SimpleNamespace

import torch
from mmcv import Config
from mmcv.parallel import DataContainer
from mmcv.runner import IterBasedRunner, IterLoader
from mmseg.utils import get_root_logger
from torch import nn

from mmseg_custom.compat.data_containers import change_tensors
from mmseg_custom.distributed.options import Engine
from mmseg_custom.distributed.parallelize import parallelize, unwrap
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.doctor.memory import MemoryEstimate, Traces, estimate
from mmseg_custom.doctor.run_kind import recomputes
from mmseg_custom.doctor.run_shape import RunShape
from mmseg_custom.engine.batch import Batch
from mmseg_custom.engine.build import build_network, compute_dtype, head_dtype, master_dtype
from mmseg_custom.engine.copied_ahead import copied_ahead
from mmseg_custom.engine.determinism import settle_determinism, use_deterministic_kernels
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.run import Run
from mmseg_custom.engine.training_runner import build_training_runner

from .context import Context
from .networks import IMAGES, crop_of, fill, random_images, recipe

CPU_BLOCKS = 2


class LoadedBatches:
    """A loader of the same batch, again and again: of the CPU's memory, pinned or not."""

    def __init__(self, images: int, crop: tuple[int, int], classes: int, pinned: bool):
        labels = torch.randint(classes, (images, 1, *crop),
                               generator=torch.Generator().manual_seed(1))
        batch = dict(
            img=DataContainer([random_images('cpu', images, 3, *crop)], stack=True),
            gt_semantic_seg=DataContainer([labels], stack=True),
            img_metas=DataContainer([[dict(flip=False)] * images], cpu_only=True))
        self._batch = change_tensors(torch.Tensor.pin_memory, batch) if pinned else batch

    def __iter__(self) -> Iterator[dict]:
        return repeat(self._batch)

    def __len__(self) -> int:
        return 10 ** 4


@dataclass(frozen=True)
class Training:
    """A recipe as it is run.

    Attributes:
        cfg: Resolved config.
        runner: Runner after ``before_run``.
        batches: Its batches, which on a GPU are copied ahead from pinned memory.
        unpinned: The same batches as mmcv's loader gives them.
        predicted: What the doctor predicts of a step.
    """
    cfg: Config
    runner: IterBasedRunner
    batches: IterLoader
    unpinned: IterLoader
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


def engine_of(cfg: Config, run: Context, images: int = IMAGES) -> Engine:
    """Returns the engine of one process, which recomputes as tools/train.py would."""
    engine = replace(Engine.of(cfg.get('engine')), type='single')
    if not (run.on_gpu and engine.recomputes_on_demand and recomputes(cfg)):
        return engine
    memory = torch.cuda.get_device_properties(0).total_memory
    shape = RunShape(run.device, 1, images, crop_of(cfg), memory=memory)
    return engine.with_recomputed(Traces(cfg, shape).choose(engine).blocks)


def predict(cfg: Config, run: Context, recomputing: bool = True,
            images: int = IMAGES) -> tuple[MemoryEstimate, RunShape]:
    """Predicts memory and operations of a step, as the doctor does."""
    memory = torch.cuda.get_device_properties(0).total_memory if run.on_gpu else None
    shape = RunShape(run.device, 1, images, crop_of(cfg), memory=memory)
    engine = engine_of(cfg, run, images) if recomputing else Engine(type='single')
    found, = estimate(cfg, shape, engine, recomputing and recomputes(cfg))
    return found, shape


def needed_flops(cfg: Config, run: Context, images: int = IMAGES) -> float:
    """Counts the operations that a step cannot do without: nothing is computed a second time."""
    return float(sum(predict(cfg, run, False, images)[0].flops.values()))


def build(settings: Run) -> nn.Module:
    """Builds the wrapped segmentor as a run does, with random weights made on the device."""
    cfg, device = settings.cfg, settings.device
    model = build_network(cfg, on_meta=True)
    apply_precision(model, compute_dtype(cfg, model), device, master_dtype=master_dtype(cfg),
                    head_dtype=head_dtype(cfg, model))
    model = fill(model, device)
    settle_determinism(model)
    return parallelize(model, device, settings.engine, master_dtype=master_dtype(cfg))


@contextmanager
def training(cfg: Config, run: Context, predicted: MemoryEstimate,
             images: int = IMAGES) -> Iterator[Training]:
    """Builds a training with random weights, on the device from the start; frees it afterwards."""
    classes = cfg.model.decode_head.num_classes
    with tempfile.TemporaryDirectory() as folder:
        cfg.update(work_dir=folder, log_config=dict(
            interval=50, hooks=[dict(type='TextLoggerHook', by_epoch=False)]))
        names = SimpleNamespace(CLASSES=('class',) * classes, PALETTE=[[0, 0, 0]] * classes)
        settings = Run(cfg, RunOptions(device=run.device), engine_of(cfg, run, images),
                       Batch(images),
                       data=dict(train=names), timestamp='benchmark')
        model = build(settings)
        torch.backends.cudnn.benchmark = cfg.get('cudnn_benchmark', False)
        runner = build_training_runner(settings, model, get_root_logger(), checkpoint_config=None)
        runner.call_hook('before_run')
        runner.call_hook('before_epoch')
        ours, unpinned = (LoadedBatches(images, crop_of(cfg), classes, pinned)
                          for pinned in (run.on_gpu, False))
        yield Training(cfg, runner, IterLoader(copied_ahead(ours, run.device)),
                       IterLoader(unpinned), predicted)
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
