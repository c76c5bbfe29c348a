"""One head of a sweep: the model, optimizer, runner and hooks of a run of its own."""
import copy
import logging
import math
import os
import os.path as osp
from collections.abc import Iterator
from contextlib import contextmanager

from mmcv.runner import RUNNERS, BaseRunner, Hook, get_dist_info
from mmcv.runner.hooks import LoggerHook
from mmseg.models import build_segmentor
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ...checkpoint import Checkpoint, load_segmentor
from ...checkpoint.work_dir import remove_leftovers
from ...distributed.launch import is_first_of_node
from ...distributed.parallelize import Engine, parallelize, unwrap
from ...distributed.precision import apply_precision
from .. import best
from ..build import compute_dtype, init_heads, master_dtype
from ..hooks import SegCheckpointHook, SegEvalHook
from ..runner import SegRunner
from ..train import assemble, register_custom_hooks
from .backbone import SharedBackbone, TrainedPart, whole
from .grid import Combination
from .notes import note_scores


class Diverged(Exception):
    """The loss of a head is no number any more."""


@RUNNERS.register_module()
class ProbeRunner(SegRunner):
    """A runner whose checkpoints hold what those of a run alone hold."""

    def save_checkpoint(self, *args, **kwargs) -> str:
        """See :class:`SegRunner`."""
        with whole(unwrap(self.model)):
            return super().save_checkpoint(*args, **kwargs)


class DivergenceHook(Hook):
    """Stops a head before NaN reaches its weights, moments and checkpoints."""

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Looks at the loss, which is the mean of all ranks: they stop together.

        Raises:
            Diverged: If it is NaN or infinite.
        """
        loss = runner.outputs['log_vars']['loss']
        if not math.isfinite(loss):
            raise Diverged(f'the loss of iteration {runner.iter + 1} is {loss}')


class ProbeEvalHook(SegEvalHook):
    """Evaluates when it is given results, not by itself.

    Attributes:
        score: The mIoU of the last evaluation, on rank 0.
    """

    score: float | None = None

    def before_epoch(self, runner: BaseRunner) -> None:
        """Nothing: the sweep makes up for an evaluation that was interrupted."""

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Nothing: one pass over the images evaluates all heads."""

    def due(self, runner: BaseRunner) -> bool:
        """Whether the iteration that was the last has an evaluation."""
        with last_iteration(runner):
            return self._should_evaluate(runner)

    def take(self, runner: BaseRunner, results: list | None) -> None:
        """Goes on with the results of a pass, on rank 0, as mmseg's hook does with its own."""
        with last_iteration(runner):
            runner.log_buffer.clear()
            if runner.rank == 0:
                runner.log_buffer.output['eval_iter_num'] = len(self.dataloader)
                score = self.evaluate(runner, results)
                self.score = runner.log_buffer.output.get('mIoU')
                note_scores(runner.work_dir, runner.iter + 1, runner.log_buffer.output)
                if self.save_best:
                    self._save_ckpt(runner, score)
            self._keep_record(runner)
            for hook in runner.hooks:
                if isinstance(hook, LoggerHook) and runner.log_buffer.ready:
                    hook.log(runner)
            runner.log_buffer.clear_output()


class Probe:
    """One head, trained a batch at a time.

    Args:
        combination: What it is.
        shared: The frozen backbone.
        dataset: What it trains on.
        device: 'cuda' or 'cpu'.
        engine: How it is spread over the processes.
        meta: Goes into its checkpoints; with ``run``.
        accumulation: Batches of an iteration.
        timestamp: Of the names of its logs.
        checkpoint: To go on from.
        validation: The loader of the images that it is evaluated on; None for no evaluation.
    """

    def __init__(self, combination: Combination, shared: SharedBackbone, dataset: Dataset,
                 device: str, engine: Engine, meta: dict, accumulation: int, timestamp: str,
                 checkpoint: str | None, validation: DataLoader | None):
        self.combination, cfg = combination, combination.cfg
        self.loss = math.nan  # of the last iteration
        logger = _logger(combination, timestamp)
        with _quiet():
            model, state = _build(combination, shared, device, checkpoint)
            model.CLASSES, model.PALETTE = dataset.CLASSES, dataset.PALETTE
            self.places = model.backbone.places
            model = parallelize(model, device, engine, cfg.get('find_unused_parameters', False),
                                masters=master_dtype(cfg))
            settings = copy.deepcopy(cfg)
            settings.runner.type = ProbeRunner.__name__
            self.runner = assemble(settings, model, meta, timestamp, accumulation, logger)
        self.runner.register_hook(DivergenceHook(), priority='HIGH')  # before the optimizer's
        self.evaluation = None
        if validation is not None:
            self.evaluation = ProbeEvalHook(validation, **{**cfg.get('evaluation', {}),
                                                           'by_epoch': False})
            self.runner.register_hook(self.evaluation, priority='LOW')
        register_custom_hooks(self.runner, cfg)
        self._keep = self._take_over_removal()
        if checkpoint:
            self.runner.restore(state)
        elif self.runner.rank == 0:
            best.forget(cfg.work_dir)

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.combination.name

    @property
    def model(self) -> nn.Module:
        """The wrapped segmentor."""
        return self.runner.model

    def start(self) -> None:
        """Before the first iteration."""
        self.runner.call_hook('before_run')
        self.runner.call_hook('before_epoch')

    def step(self, batches: 'Batches') -> None:
        """One iteration on batches with the maps of all layers.

        Raises:
            Diverged: If its loss is no number; its weights are those before.
        """
        self.runner._inner_iter = 0  # as mmcv's loop has it
        self.runner.train(batches.read_by(self.places))
        self.loss = self.runner.outputs['log_vars']['loss']
        self.runner.outputs = None

    def evaluation_due(self) -> bool:
        """Whether the last iteration has an evaluation that is not made yet."""
        runner = self.runner
        return (self.evaluation is not None and runner.iter > 0
                and getattr(runner, 'evaluated', None) != runner.iter
                and self.evaluation.due(runner))

    def save(self) -> None:
        """Saves a checkpoint of the last iteration, on rank 0."""
        with last_iteration(self.runner):
            if self.runner.rank == 0:
                self.runner.save_checkpoint(self.runner.work_dir)

    def remove_older(self) -> None:
        """Removes checkpoints; called once all heads have theirs of the last iteration.

        Otherwise a kill in between could leave them without one of a common iteration.
        """
        if self._keep is None or self.runner.rank > 0:
            return
        hook, number = self._keep
        if self.runner.iter % max(hook.interval, 1) == 0:
            hook.max_keep_ckpts = number
            hook._remove_older(self.runner.iter)
            hook.max_keep_ckpts = -1

    def finish(self) -> None:
        """After the last iteration."""
        self.runner.call_hook('after_epoch')
        self.runner.call_hook('after_run')
        self.close()

    def close(self) -> None:
        """Closes the log."""
        for handler in list(self.runner.logger.handlers):
            handler.close()
            self.runner.logger.removeHandler(handler)

    def _take_over_removal(self) -> tuple[SegCheckpointHook, int] | None:
        for hook in self.runner.hooks:
            if isinstance(hook, SegCheckpointHook) and hook.max_keep_ckpts > 0:
                number, hook.max_keep_ckpts = hook.max_keep_ckpts, -1
                return hook, number
        return None


class Batches:
    """The batches of an iteration, with maps, for one head after another; stands for a loader.

    Args:
        batches: With ``feats``, the maps of all layers.
        length: Batches of a pass over the data.
    """

    epoch = 0

    def __init__(self, batches: list[dict], length: int):
        self._batches, self._length = batches, length
        self._next: Iterator[dict] = iter(())

    def read_by(self, places: list[int]) -> 'Batches':
        """Itself, from the first batch on, with the maps that a head reads."""
        self._next = iter([{**batch, 'feats': [batch['feats'][i] for i in places]}
                           for batch in self._batches])
        return self

    def __next__(self) -> dict:
        return next(self._next)

    def __len__(self) -> int:
        return self._length


@contextmanager
def last_iteration(runner: BaseRunner) -> Iterator[None]:
    """Inside, a runner stands where its hooks are called after the iteration that was the last."""
    runner.mode, runner._iter = 'train', runner.iter - 1
    try:
        yield
    finally:
        runner._iter += 1


def _build(combination: Combination, shared: SharedBackbone, device: str,
           checkpoint: str | None) -> tuple[nn.Module, Checkpoint | None]:
    """The segmentor as a run alone would build it; the backbone in it is a :class:`TrainedPart`."""
    cfg = combination.cfg
    options = copy.deepcopy(cfg.model)
    options.backbone.pretrained = shared.network
    shared.as_after_building()
    model = build_segmentor(options, train_cfg=cfg.get('train_cfg'), test_cfg=cfg.get('test_cfg'))
    init_heads(model)
    apply_precision(model, compute_dtype(cfg, model), device, masters=master_dtype(cfg))
    state = None
    if checkpoint:
        state = load_segmentor(model, checkpoint, verify=is_first_of_node())
    model.backbone = TrainedPart(model.backbone, shared)
    return model, state


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what is logged whenever a head is built, once for every one."""
    loggers = [logging.getLogger(name) for name in ('mmcv', 'mmseg')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(max(logging.WARNING, logger.level))
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def _logger(combination: Combination, timestamp: str) -> logging.Logger:
    """A log of its own, in a file of its folder; on rank 0."""
    folder = combination.cfg.work_dir
    logger = logging.getLogger(f'mmseg.sweep.{combination.name}')
    logger.propagate = False
    logger.setLevel(logging.INFO)
    if get_dist_info()[0] > 0:
        logger.setLevel(logging.ERROR)
        return logger
    os.makedirs(folder, exist_ok=True)
    remove_leftovers(folder)
    combination.cfg.dump(osp.join(folder, 'config.py'))
    handler = logging.FileHandler(osp.join(folder, f'{timestamp}.log'))
    handler.setFormatter(logging.Formatter('%(asctime)s - %(levelname)s - %(message)s'))
    logger.addHandler(handler)
    return logger
