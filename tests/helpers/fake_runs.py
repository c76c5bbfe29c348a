"""Training runs of the recipes on a simulated CUDA device: real widths, few blocks."""
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from helpers.commands import ROOT
from helpers.fake_cuda import FakeCuda
from mmcv import Config
from mmcv.parallel import DataContainer
from mmcv.runner import IterLoader
from torch import nn
from torch.distributed import GradBucket
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.data import Dataset
from torch.utils.data._utils.pin_memory import pin_memory

from mmseg_custom.distributed.mesh import build_mesh
from mmseg_custom.distributed.parallelize import choose_engine, parallelize
from mmseg_custom.distributed.precision import apply_precision, training_dtype
from mmseg_custom.doctor.depth import with_depth
from mmseg_custom.engine.build import build_network, compute_dtype, head_dtype, master_dtype
from mmseg_custom.engine.config import load_config, resolve_config
from mmseg_custom.engine.copied_ahead import copied_ahead
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.run import Run, prepare_run
from mmseg_custom.engine.training_runner import build_training_runner

RECIPES = {
    'linear probing': 'linear_probing/linear_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen.py',
    'head tuning': 'head_tuning/upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen.py',
    'few-shot': 'few_shot/linear_intern_vit_6b_504_5k_ade20k_bs16_lr4e-5_1of16.py',
    'full tuning': 'full_tuning/upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5.py'}
EDGE = 2  # blocks before the first of several that are read


class Images(Dataset):
    """Stands for the training data, of which a run needs names and classes here."""

    CLASSES, PALETTE = tuple(f'class {i}' for i in range(150)), [[0, 0, 0]] * 150
    img_infos = [dict(filename=f'{i}.jpg') for i in range(100)]

    def __len__(self) -> int:
        return len(self.img_infos)


def recipe(name: str, blocks: int = 7, **settings) -> Config:
    """Returns a recipe of InternViT-6B with few blocks, to be trained for three iterations.

    Args:
        name: One of ``RECIPES``, or another path in ``configs/intern_vit_6b``.
        blocks: Number of blocks that are read.
        **settings: Settings that replace the recipe's, with ``__`` for dots.
    """
    cfg = load_config(str(ROOT / 'configs/intern_vit_6b' / RECIPES.get(name, name)))
    inner = len(cfg.model.backbone.out_indices) - 1
    cfg = with_depth(cfg, [*range(EDGE, EDGE + inner), blocks - 1])
    cfg.merge_from_dict({'runner.max_iters': 3, 'log_config.interval': 2,
                         **{key.replace('__', '.'): value for key, value in settings.items()}})
    return cfg


def prepared(cfg: Config, work_dir: Path, ranks: int = 1) -> Run:
    """Prepares a run on CUDA without reading data."""
    work_dir.mkdir()
    options = RunOptions(device='cuda', seed=0, work_dir=str(work_dir))
    run = prepare_run(resolve_config(cfg, options)[0], options, splits=(), ranks=ranks)
    return Run(**{**vars(run), 'data': dict(train=Images())})


def built(run: Run, seen: FakeCuda) -> nn.Module:
    """Builds the segmentor of a run with fake weights on the CPU, and wraps it for training."""
    cfg = run.cfg
    with _disable_current_modes():
        model = build_network(cfg, on_meta=True)
        kind = choose_engine(run.engine, model)
        dtype = training_dtype(compute_dtype(cfg, model), model.backbone)
        apply_precision(model, dtype, 'cuda', store=kind != 'fsdp2', master_dtype=master_dtype(cfg),
                        head_dtype=head_dtype(cfg, model))
        mesh = build_mesh('cuda', run.engine.hybrid is True) if kind == 'fsdp2' else None
    model.to_empty(device='cuda' if kind == 'fsdp2' else 'cpu')  # FSDP2 moves what it shards
    wrapped = parallelize(model, 'cuda', run.engine, kind=kind, master_dtype=master_dtype(cfg),
                          mesh=mesh)
    if kind == 'ddp':
        wrapped.register_comm_hook(seen, _reduce)
        wrapped.reducer = _Reducer(wrapped.reducer)
    return wrapped


class _Reducer:
    """DDP's reducer, which keeps its first buckets: it agrees on new ones through memory."""

    def __init__(self, reducer: object):
        self._reducer = reducer

    def __getattr__(self, name: str):
        return getattr(self._reducer, name)

    def _rebuild_buckets(self) -> bool:
        return False


def _reduce(seen: FakeCuda, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Takes the place of nccl in DDP."""
    seen.collect('ddp', bucket.buffer())
    done = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


def batches(run: Run) -> Iterator[dict]:
    """Yields batches as a loader makes them, of fake tensors on the CPU."""
    number, side = run.batch.samples, run.cfg.crop_size[0]
    while True:
        yield dict(
            img=DataContainer([torch.empty(number, 3, side, side)], stack=True),
            gt_semantic_seg=DataContainer(
                [torch.empty(number, 1, side, side, dtype=torch.long)], stack=True),
            img_metas=DataContainer([[{}] * number], cpu_only=True))


class Pinned:
    """A loader that pins its batches, as torch's does."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self) -> Iterator[dict]:
        return map(pin_memory, iter(self.loader))

    def __len__(self) -> int:
        return len(self.loader)


class Loader:
    """A loader of endless batches."""

    def __init__(self, run: Run):
        self._batches, self.epoch = batches(run), 0

    def __iter__(self) -> Iterator[dict]:
        return self

    def __next__(self) -> dict:
        return next(self._batches)

    def __len__(self) -> int:
        return 100


def train(run: Run, seen: FakeCuda, hooks=(), loader=None, before=lambda runner: None):
    """Trains a run with its own runner and hooks; returns the runner."""
    logger = logging.getLogger('mmseg.fake')
    logger.setLevel(logging.INFO)
    logger.propagate = False
    iterations = run.cfg.runner.max_iters
    runner = build_training_runner(run, built(run, seen), logger, checkpoint_config=None,
                                   max_iters=iterations + 1)  # the very last has a line of the log
    for group in runner.optimizer.param_groups:
        group['foreach'] = True  # as on a GPU; torch does not see that fake parameters are plain
    for hook in hooks:
        runner.register_hook(hook, priority=getattr(hook, 'registered', 'LOWEST'))
    before(runner)
    for stage in ('before_run', 'before_epoch'):
        runner.call_hook(stage)
    stream = IterLoader(copied_ahead(Pinned(loader or Loader(run)), 'cuda'))
    for _ in range(iterations):
        runner.train(stream)
    for stage in ('after_epoch', 'after_run'):
        runner.call_hook(stage)
    return runner
