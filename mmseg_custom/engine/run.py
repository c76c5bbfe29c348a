"""Prepares the run that training, sweeps, caches, tests and the doctor start from.

    resolved config -> batch, engine -> checkpoint -> seed -> data sets -> identity -> Run

A run is typed and immutable: later code reads it, and never writes to the config.
"""
import copy
import os.path as osp
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from mmcv import Config
from mmcv.runner import get_dist_info
from mmseg import __version__ as mmseg_version
from mmseg.utils import get_root_logger
from torch.utils.data import Dataset

from ..checkpoint.adapter_record import refuse_merged
from ..checkpoint.checkpoint import Checkpoint, open_checkpoint
from ..checkpoint.content import check_progress
from ..checkpoint.work_dir import open_newest, remove_leftovers
from ..choices import UNTRAINED
from ..datasets.build import build_test_dataset, build_train_dataset, build_validation_dataset
from ..distributed.collectives import broadcast_from_rank0
from ..distributed.options import Engine
from ..distributed.parallelize import check_engine
from ..errors import InputError
from ..version import __version__
from . import preflight
from .batch import Batch, resolve_batch
from .blame import reading
from .classes import check_trained_classes
from .epochs import count_in_iterations, epoch_length
from .foreign_settings import read_workflow
from .identity import identity, refuse_another
from .options import RunOptions
from .randomness import seed_process


@dataclass(frozen=True)
class Run:
    """A prepared run.

    Attributes:
        cfg: Resolved config, which is never written to.
        options: Options of the command line.
        engine: Engine that distributes the run over its processes.
        batch: Batch of an optimizer step.
        seed: Seed that the ranks share; a test needs none.
        data: Data sets by split: 'train', 'val' (evaluated during training), 'test', and
            'val_loss' if the loss of validation images is computed.
        checkpoint: Opened checkpoint that the run is resumed from, or that provides its weights.
        resumed: Whether the run is resumed from its checkpoint.
        identity: Parts that a resumed run must share with its checkpoint: see :mod:`.identity`.
        timestamp: Timestamp in the names of its logs.
        sweep: Work dir of the sweep that it belongs to, or None.
    """
    cfg: Config
    options: RunOptions
    engine: Engine
    batch: Batch
    seed: int = 0
    data: Mapping[str, Dataset] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    resumed: bool = False
    identity: Mapping[str, str] = field(default_factory=dict)
    timestamp: str | None = None
    sweep: str | None = None

    @property
    def device(self) -> str:
        """Device that the run computes on, 'cuda' or 'cpu'."""
        return self.options.device

    @property
    def work_dir(self) -> str:
        """Folder of logs, checkpoints and results."""
        return self.cfg.work_dir

    @property
    def rank_seed(self) -> int:
        """Seed of this rank's generators."""
        return self.seed + (get_dist_info()[0] if self.options.diff_seed else 0)

    @property
    def record(self) -> Config:
        """Copy of the config with the seed, as it is kept beside and in the checkpoints."""
        cfg = copy.deepcopy(self.cfg)
        cfg.seed = self.seed
        return cfg

    @cached_property
    def record_text(self) -> str:
        """Text of the record in Python; mmcv takes half a second to format it."""
        return self.record.pretty_text

    def dump(self) -> str:
        """Returns the record in the format of the config's file."""
        record = self.record
        is_python = (record.filename or '.py').endswith('.py')
        return self.record_text if is_python else record.dump()

    @property
    def meta(self) -> dict[str, Any]:
        """Metadata of its checkpoints, in plain strings, lists and numbers."""
        data = self.data['train']
        return dict(config=self.record_text, CLASSES=list(data.CLASSES),
                    PALETTE=data.PALETTE, mmseg_version=mmseg_version,
                    internvit_seg_version=__version__, seed=self.seed, run=dict(self.identity))

    def with_config(self, cfg: Config) -> 'Run':
        """Returns the same run with another resolved config, and the identity that follows."""
        return replace(self, cfg=cfg, identity=identity(
            cfg, self.data['train'], self.batch.images, self.seed, self.options.diff_seed))


def prepare_run(cfg: Config, options: RunOptions, splits: Collection[str] = ('train', 'val'),
                ranks: int | None = None, timestamp: str | None = None) -> Run:
    """Prepares a run: opens its checkpoint, builds its data sets, and checks that they fit.

    Called once, on all ranks. It also seeds the generators of this process. Without ``splits``,
    nothing is read from the disk.

    Args:
        cfg: Resolved config: see :func:`.config.resolve_config`.
        options: Options of the command line.
        splits: Data sets to build: 'train', 'val', 'test'.
        ranks: Number of processes of the run; default: the size of the process group.
        timestamp: Timestamp in the names of the logs.

    Raises:
        InputError: If something in the config, the data or the checkpoint is wrong, or the
            checkpoint to resume from belongs to another run.
    """
    ranks = ranks or get_dist_info()[1]
    tests = 'test' in splits  # Settings of the training are not read then.
    trains = options.owns_work_dir and not tests
    if trains and splits:
        preflight.check_settings(cfg)
        check_engine(Engine.of(cfg.get('engine')))
    checkpoint, resumed = _open_checkpoint(cfg, options) if splits else (None, False)
    if checkpoint is not None and resumed:
        check_progress(checkpoint.meta, checkpoint.path)
        refuse_merged(checkpoint.meta, checkpoint.path)
    run = Run(cfg, options,
              engine=(Engine.of_test if tests else Engine.of)(cfg.get('engine')),
              batch=resolve_batch(cfg, ranks) if trains else Batch(1, ranks),
              seed=0 if tests else _seed(options, checkpoint if resumed else None),
              data=_build_data(cfg, options, splits),
              checkpoint=checkpoint, resumed=resumed, timestamp=timestamp)
    if 'test' in run.data:
        preflight.check_test(cfg, run.data['test'], checkpoint)
    if 'train' not in run.data:
        return run
    preflight.check_heads(cfg, run.data['train'], options)
    if trains:
        preflight.check_training(cfg, run.data, None if resumed else checkpoint)
        preflight.check_compiler(cfg, run.device)
        cfg = _in_iterations(run)
    run = run.with_config(cfg)
    if checkpoint is not None and resumed:
        refuse_another(checkpoint.meta.get('run'), run.identity, checkpoint.path)
        check_trained_classes(checkpoint, run.data['train'], resumed=True)
    return run


def _in_iterations(run: Run) -> Config:
    """Returns the config of a training with what counts in epochs counted in iterations."""
    logger = get_root_logger()
    logger.info('%s', run.batch)
    validation = len(run.data.get('val_loss', ()))
    cfg, notes = count_in_iterations(
        run.cfg, epoch_length(len(run.data['train']), run.batch),
        epoch_length(validation, replace(run.batch, accumulation=1)))
    for note in notes:
        logger.info('%s', note)
    return cfg


def _seed(options: RunOptions, resumed: Checkpoint | None) -> int:
    seed = options.seed
    if seed is None and resumed is not None:
        seed = resumed.meta.get('seed')
    return seed_process(seed, options.diff_seed)


def _build_data(cfg: Config, options: RunOptions, splits: Collection[str]
                ) -> Mapping[str, Dataset]:
    builders = dict(train=build_train_dataset, val=build_test_dataset, test=build_test_dataset)
    found = {}
    for split in splits:
        if split == 'val' and options.no_validate:
            continue
        if split not in cfg.data:
            raise InputError(f'data.{split} is missing from the config' + (
                '; --no-validate trains without it' if split == 'val' else ''))
        with reading(f'data.{split}'):
            found[split] = builders[split](cfg.data[split])
    if 'train' in splits and options.owns_work_dir and read_workflow(cfg.get('workflow'))[1]:
        with reading('data.val, or the pipeline of data.train'):
            found['val_loss'] = build_validation_dataset(cfg.data.val, cfg.data.train)
    return MappingProxyType(found)


def _open_checkpoint(cfg: Config, options: RunOptions) -> tuple[Checkpoint | None, bool]:
    """Opens the checkpoint of a run.

    Returns:
        The checkpoint, if there is one, and whether the run is resumed from it.
    """
    if options.checkpoint:
        return _opened(None if options.checkpoint == UNTRAINED else options.checkpoint), False
    if not options.owns_work_dir:
        return _opened(cfg.get('load_from')), False
    if cfg.get('sweep'):  # Each head has its own checkpoints.
        return None, False
    rank, _ = get_dist_info()
    if rank == 0 and osp.isdir(cfg.work_dir):
        remove_leftovers(cfg.work_dir)
    path, newest = cfg.get('resume_from'), None
    if options.auto_resume and not path:
        newest = open_newest(cfg.work_dir) if rank == 0 else None
        path = broadcast_from_rank0(newest.path if newest else None)
        get_root_logger().info('--auto-resume: %s', path or 'no checkpoint yet')
    if path:
        return newest or _opened(path), True
    return _opened(cfg.get('load_from')), False


def _opened(path: str | None) -> Checkpoint | None:
    return open_checkpoint(path) if path else None
