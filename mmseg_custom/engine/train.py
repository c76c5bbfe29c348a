"""Config -> model -> parallelize -> optimizer -> runner -> hooks: one training run."""
import logging
import os.path as osp
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import mmcv
from mmcv import Config
from mmcv.parallel import collate
from mmcv.runner import HOOKS, IterBasedRunner, build_optimizer, build_runner, get_dist_info
from mmcv.utils import build_from_cfg
from mmseg import __version__ as mmseg_version
from mmseg.datasets import build_dataset
from mmseg.models import build_segmentor
from mmseg.utils import get_root_logger
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..checkpoint import (
    is_sharded_checkpoint,
    load_segmentor,
    load_shares,
    newest_whole,
    remove_leftovers,
    sha256_in_background,
)
from ..checkpoint.provenance import source_of
from ..datasets.build import build_train_dataset
from ..distributed.launch import broadcast_from_rank0, is_first_of_node
from ..distributed.parallelize import Engine, choose_engine, parallelize, unwrap
from ..distributed.precision import apply_precision
from ..version import __version__
from . import best
from .batch import resolve_batch
from .build import (
    build_on_meta,
    check_finite,
    compute_dtype,
    header_of,
    init_heads,
    is_classic,
    master_dtype,
)
from .cached import open_cache, spare_backbone
from .config import check_classes, loader_options, translate, without_pretrained
from .hooks import SegDistEvalHook, SegEvalHook, ToBFloat16Hook, ToFloat16Hook
from .identity import identity, refuse_another
from .preemption import PreemptionHook, shield_worker
from .randomness import SeededSamples, SeedHook
from .sampler import InfiniteSampler
from .test import build_test_loader


def train(cfg: Config, device: str, validate: bool = True, timestamp: str | None = None,
          meta: dict | None = None) -> None:
    """Trains a segmentor; the process group, the seeds and the log are set up already.

    Args:
        cfg: A config with ``work_dir`` and ``seed``; it goes on from ``resume_from``.
        device: 'cuda' or 'cpu'.
        validate: Evaluate during training, as ``cfg.evaluation`` says.
        timestamp: Of the log's file name.
        meta: Goes into every checkpoint.
    """
    preemption = PreemptionHook()
    preemption.listen()
    translate(cfg)
    engine = Engine.of(cfg.get('engine'))
    logger = get_root_logger()
    rank, world_size = get_dist_info()
    accumulation = resolve_batch(cfg, world_size)
    step_images = world_size * accumulation * loader_options(cfg, 'train')['samples_per_gpu']
    dataset = build_train_dataset(cfg.data.train)
    check_classes(cfg, dataset.CLASSES)
    meta = dict(meta or {}, **describe_run(cfg, dataset), run=identity(cfg, dataset, step_images))
    resume_from = cfg.get('resume_from')
    if resume_from:
        refuse_another(meta_of(resume_from).get('run'), meta['run'], resume_from)
    elif rank == 0:
        best.forget(cfg.work_dir)
    cached = bool(cfg.get('feature_cache'))
    spare = partial(spare_backbone, cfg, dataset) if cached and not validate else None
    model, checkpoint = build_model(cfg, device, engine, resume_from or cfg.get('load_from'), spare)
    logger.debug('%s', model)
    segmentor = unwrap(model)
    segmentor.CLASSES, segmentor.PALETTE = dataset.CLASSES, dataset.PALETTE
    hash_ahead(segmentor)
    samples = SeededSamples(dataset, cfg.seed)
    if cached:
        samples = open_cache(cfg, model, dataset, device, lambda: preemption.asked_by is not None)
    runner = assemble(cfg, model, meta, timestamp, accumulation, logger)
    runner.register_hook(preemption, priority='LOW')
    if validate:
        _register_evaluation(runner, cfg, device)
    register_custom_hooks(runner, cfg)
    if resume_from:
        runner.restore(checkpoint, resume_from)
    loader = build_train_loader(cfg, samples, device, start=runner.iter * accumulation)
    logger.info('training on %s x %d, %d images a step', device, world_size, step_images)
    runner.run([loader], [('train', 1)])


def assemble(cfg: Config, model: nn.Module, meta: dict, timestamp: str | None, accumulation: int,
             logger: logging.Logger) -> IterBasedRunner:
    """Optimizer and runner of a wrapped model, without evaluation, preemption and custom hooks."""
    optimizer = build_optimizer(model, cfg.optimizer)
    runner = build_runner(cfg.runner, dict(
        model=model, optimizer=optimizer, work_dir=cfg.work_dir, logger=logger, meta=meta))
    runner.timestamp = timestamp
    runner.accumulation = accumulation
    runner.register_training_hooks(
        cfg.lr_config, cfg.get('optimizer_config', {}), cfg.get('checkpoint_config'),
        cfg.get('log_config'), cfg.get('momentum_config'))
    rank, _ = get_dist_info()
    runner.register_hook(SeedHook(cfg.seed + (rank if cfg.get('diff_seed') else 0)))
    return runner


def find_resume(cfg: Config) -> str | None:
    """The checkpoint to go on from: the one asked for, or the newest whole one in the work dir."""
    rank, _ = get_dist_info()
    if rank == 0:
        remove_leftovers(cfg.work_dir)
    if cfg.get('resume_from') or not cfg.get('auto_resume'):
        return cfg.get('resume_from')
    found = broadcast_from_rank0(newest_whole(cfg.work_dir) if rank == 0 else None)
    get_root_logger().info('--auto-resume: %s', found or 'no checkpoint yet')
    return found


def meta_of(checkpoint: str) -> dict:
    """What a checkpoint says about its run; empty for a file of another program."""
    return header_of(checkpoint).get('meta') or {}


def build_model(cfg: Config, device: str, engine: Engine, checkpoint: str | None = None,
                before_wrapping: Callable[[nn.Module], None] | None = None
                ) -> tuple[nn.Module, dict]:
    """Builds the segmentor with its weights, in the dtypes that it trains in, and wraps it.

    Where it is sharded, no process holds all weights in float32 at any time: those of files are
    mapped, shared by the processes of a node, and become float32 block by block; from the folder
    of a sharded checkpoint each process reads its share.

    Args:
        cfg: The run's config.
        device: 'cuda' or 'cpu', where it will train.
        engine: How it is spread over the processes.
        checkpoint: Where to take the weights from, instead of or beside the pretrained file.
        before_wrapping: Is given the segmentor with its weights, which are not on the device yet.

    Returns:
        The wrapped model, and what else the checkpoint holds.
    """
    whole = checkpoint is not None and is_classic(checkpoint)
    if whole:  # it brings every weight: none is initialised, no pretrained file is read
        without_pretrained(cfg)
    with build_on_meta(cfg) if whole else nullcontext():
        model = build_segmentor(cfg.model, train_cfg=cfg.get('train_cfg'),
                                test_cfg=cfg.get('test_cfg'))
    if not whole:
        init_heads(model)
    kind = choose_engine(engine, model)
    sharded, masters = kind == 'fsdp2', master_dtype(cfg)
    dtype = compute_dtype(cfg, model)
    if dtype is not None:
        apply_precision(model, dtype, device, store=not sharded, masters=masters)
    by_shares = sharded and whole and is_sharded_checkpoint(checkpoint)
    rest = {}
    if checkpoint is not None and not by_shares:
        rest = load_segmentor(model, checkpoint, verify=is_first_of_node(), as_stored=sharded)
    if cfg.get('check_finite') and not by_shares:
        check_finite(model)
    if before_wrapping is not None:
        before_wrapping(model)
    model = parallelize(model, device, engine, cfg.get('find_unused_parameters', False), kind,
                        masters)
    if by_shares:
        rest = load_shares(unwrap(model), checkpoint, check_finite=cfg.get('check_finite'))
    return model, rest


def hash_ahead(model: nn.Module) -> None:
    """Starts to hash the frozen backbone's file, so that the first checkpoint need not wait."""
    source = source_of(model.backbone)
    frozen = any(not p.requires_grad for p in model.backbone.parameters())
    if source is not None and frozen and get_dist_info()[0] == 0:
        sha256_in_background(source.path)


def build_train_loader(cfg: Config, samples: Dataset, device: str, start: int = 0) -> DataLoader:
    """The loader of a training run that has taken ``start`` batches.

    Args:
        cfg: The run's config.
        samples: Asked for as (position in the stream, index).
        device: 'cuda' or 'cpu'.
        start: See above.
    """
    rank, world_size = get_dist_info()
    options = loader_options(cfg, 'train')
    batch, workers = options['samples_per_gpu'], options['workers_per_gpu']
    if len(samples) < batch * world_size:
        get_root_logger().warning('%d images are fewer than one step of %d: images repeat within '
                                  'a step', len(samples), batch * world_size)
    return DataLoader(
        samples, batch_size=batch, num_workers=workers,
        sampler=InfiniteSampler(len(samples), cfg.seed, rank, world_size, start * batch),
        collate_fn=partial(collate, samples_per_gpu=batch), drop_last=True,
        pin_memory=device == 'cuda', persistent_workers=workers > 0,
        worker_init_fn=shield_worker)


def describe_run(cfg: Config, dataset: Dataset) -> dict:
    """What a checkpoint says about its run; plain strings, lists and numbers."""
    return dict(config=cfg.pretty_text, CLASSES=list(dataset.CLASSES), PALETTE=dataset.PALETTE,
                mmseg_version=mmseg_version, internvit_seg_version=__version__, seed=cfg.seed)


def _register_evaluation(runner: IterBasedRunner, cfg: Config, device: str) -> None:
    dataset = build_dataset(cfg.data.val, dict(test_mode=True))
    options = dict(cfg.get('evaluation', {}))
    options['by_epoch'] = not isinstance(runner, IterBasedRunner)
    _, world_size = get_dist_info()
    hook = SegDistEvalHook if world_size > 1 else SegEvalHook
    loader = build_test_loader(cfg, dataset, device, 'val')
    loader.worker_init_fn = shield_worker
    # After the optimizer and the log; mmcv's hooks of the same priority run in this order too.
    runner.register_hook(hook(loader, **options), priority='LOW')


def register_custom_hooks(runner: IterBasedRunner, cfg: Config) -> None:
    """Registers ``custom_hooks`` of the config."""
    for options in cfg.get('custom_hooks') or []:
        options = dict(options)
        priority = options.pop('priority', 'NORMAL')
        hook = build_from_cfg(options, HOOKS)
        if isinstance(hook, (ToBFloat16Hook, ToFloat16Hook)):
            continue  # the model was built in the precision that they, or the config, ask for
        runner.register_hook(hook, priority=priority)


def dump_config(cfg: Config, path: str) -> None:
    """Writes the whole config of a run beside its log."""
    rank, _ = get_dist_info()
    if rank == 0:
        mmcv.mkdir_or_exist(osp.abspath(cfg.work_dir))
        cfg.dump(osp.join(cfg.work_dir, osp.basename(path)))
