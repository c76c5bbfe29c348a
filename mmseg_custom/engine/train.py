"""Trains a segmentor: run -> model -> optimizer -> runner -> hooks."""
import copy
import logging
from functools import partial

from mmcv import Config
from mmcv.runner import (
    HOOKS,
    RUNNERS,
    BaseRunner,
    IterBasedRunner,
    build_runner,
    get_dist_info,
)
from mmcv.utils import build_from_cfg
from mmseg.core import build_optimizer
from mmseg.datasets import CustomDataset
from mmseg.utils import get_root_logger
from torch import nn
from torch.utils.data import Dataset

from ..datasets.nesting import innermost_datasets
from ..distributed.parallelize import unwrap
from ..errors import InputError
from ..evaluation.metrics import BOUNDARY, MMSEG_METRICS
from ..models.segmentors.encoder_decoder import InternViTSegmentor, check_test_cfg
from . import best, ema
from .batch_norm import check_batch_norm
from .blame import first_iteration, reading
from .build import build_model, hash_ahead
from .cached import drop_unneeded_blocks, open_cache
from .evaluation_hook import SegEvalHook
from .hooks import ToBFloat16Hook, ToFloat16Hook
from .label_check import with_checked_labels
from .last_save import LastSave
from .loaders import build_test_loader, build_train_loader
from .preemption import Preemption, PreemptionHook
from .randomness import SeededSamples, SeedHook
from .run import Run
from .runner import SegRunner
from .validation_loss import ValidationLossHook


def train(run: Run) -> None:
    """Trains a segmentor; the process group and the log are set up already.

    Args:
        run: Run with training data, and with validation data if it is to be evaluated.

    Raises:
        InputError: If something in the config is wrong.
        SystemExit: With code 75 if it is stopped by a signal.
    """
    logger = get_root_logger()
    check_batch_norm(run.cfg, run.batch)
    preemption = Preemption()
    preemption.listen()
    if not run.resumed and get_dist_info()[0] == 0:
        best.remove(run.work_dir)
    cached = bool(run.cfg.get('feature_cache'))
    only_trained = not {'val', 'val_loss'} & set(run.data)
    spare = partial(drop_unneeded_blocks, run) if cached and only_trained else None
    model = build_model(run, spare)
    logger.debug('%s', model)
    segmentor = unwrap(model)
    segmentor.CLASSES, segmentor.PALETTE = run.data['train'].CLASSES, run.data['train'].PALETTE
    hash_ahead(segmentor.backbone)
    samples = (open_cache(run, model, preemption.requested) if cached
               else SeededSamples(run.data['train'], run.seed))
    samples = with_checked_labels(samples, run.cfg.model)
    last_save = LastSave(run.options.spare_dir, run.options.wait_for_disk)
    runner = build_training_runner(run, model, logger, last_save)
    runner.register_hook(PreemptionHook(preemption, last_save), priority='LOW')
    if 'val' in run.data:
        # After the optimizer and the log; mmcv's hooks of the same priority run in this order too.
        runner.register_hook(build_evaluation(run, runner), priority='LOW')
    if 'val_loss' in run.data:
        runner.register_hook(ValidationLossHook(run), priority='LOWEST')
    register_custom_hooks(runner, run)
    if run.resumed:
        runner.restore(run.checkpoint)
    loader = build_train_loader(run, samples, done=runner.iter)
    logger.info('training on %s x %d, %d images a step', run.device, run.batch.ranks,
                run.batch.images)
    with first_iteration(runner):
        runner.run([loader], [('train', 1)])


def build_training_runner(run: Run, model: nn.Module, logger: logging.Logger,
                          last_save: LastSave | None = None, **options) -> IterBasedRunner:
    """Builds optimizer and runner, without the evaluation, preemption and custom hooks.

    Args:
        run: The run.
        model: Wrapped segmentor.
        logger: Logger of the run.
        last_save: How the last checkpoint is insisted on.
        **options: Options of the runner and of its ``checkpoint_config`` that replace the
            config's.

    Raises:
        InputError: If the runner does not accumulate batches or count epochs, and has to.
    """
    cfg = copy.deepcopy(run.cfg)  # mmcv removes the types from the hooks' settings.
    checkpoints = options.pop('checkpoint_config', cfg.get('checkpoint_config'))
    if checkpoints is not None and checkpoints.get('type', 'CheckpointHook') == 'CheckpointHook':
        checkpoints = {**checkpoints, 'last_save': last_save}
    with reading('optimizer'):
        optimizer = build_optimizer(model, cfg.optimizer)
    defaults = dict(model=model, optimizer=optimizer, work_dir=run.work_dir, logger=logger,
                    meta=run.meta)
    if issubclass(RUNNERS.get(cfg.runner.type) or object, SegRunner):
        defaults.update(accumulation=run.batch.accumulation,
                        allow_nonfinite=run.options.allow_nonfinite)
    elif run.batch.accumulation > 1:
        raise InputError(f'runner.type={cfg.runner.type!r} does not accumulate '
                         f'{run.batch.accumulation} batches: expected IterBasedRunner')
    elif cfg.runner.get('epoch_length'):
        raise InputError(f'runner.type={cfg.runner.type!r} does not count epochs, as by_epoch=True '
                         'of lr_config or momentum_config asks for: expected IterBasedRunner')
    with reading('runner'):
        runner = build_runner({**cfg.runner, **options}, defaults)
    runner.timestamp = run.timestamp
    _warn_of_epochs(cfg, runner, logger)
    with reading('lr_config, optimizer_config, checkpoint_config, log_config or momentum_config'):
        runner.register_training_hooks(
            cfg.get('lr_config'), cfg.get('optimizer_config') or {}, checkpoints,
            cfg.get('log_config'), cfg.get('momentum_config'))
    runner.register_hook(SeedHook(run.rank_seed))
    return runner


def _check_metric(metric: str | list[str], dataset: Dataset) -> None:
    """Refuses metrics that there are not, before the training and not after it.

    Raises:
        InputError: Naming the metric.
    """
    known = (*MMSEG_METRICS, BOUNDARY)
    for each in innermost_datasets(dataset):
        unknown = [name for name in ([metric] if isinstance(metric, str) else metric)
                   if name not in known]
        if unknown and type(each).evaluate is CustomDataset.evaluate:
            raise InputError(f'evaluation.metric={unknown[0]!r}: expected some of '
                             f'{", ".join(known)}')


def _warn_of_epochs(cfg: Config, runner: BaseRunner, logger: logging.Logger) -> None:
    """Warns of settings by epoch, of which a runner that counts iterations has none."""
    effects = dict(lr_config='the learning rate stays as it is', momentum_config='the momentum '
                   'stays as it is', checkpoint_config='no checkpoint is saved on its account')
    for name, effect in effects.items():
        if isinstance(runner, IterBasedRunner) and (cfg.get(name) or {}).get('by_epoch'):
            logger.warning('%s.by_epoch=True, but the runner counts iterations: %s; set it False',
                           name, effect)


def _warn_of_no_evaluation(options: dict, runner: BaseRunner) -> None:
    first = options.get('start') or options.get('interval', 1)
    if isinstance(runner, IterBasedRunner) and first > runner.max_iters:
        runner.logger.warning('the first evaluation is due in iteration %d, the run ends with %d: '
                              'nothing is evaluated, and no best checkpoint saved; set '
                              'evaluation.interval lower, or give --no-validate', first,
                              runner.max_iters)


def build_evaluation(run: Run, runner: BaseRunner,
                     hook: type[SegEvalHook] = SegEvalHook) -> SegEvalHook:
    """Builds the hook that evaluates during training, as ``evaluation`` of the config says."""
    options = {**(run.cfg.get('evaluation') or {}),
               'by_epoch': not isinstance(runner, IterBasedRunner)}
    _check_metric(options.get('metric', 'mIoU'), run.data['val'])
    _warn_of_no_evaluation(options, runner)
    segmentor = unwrap(runner.model)
    if isinstance(segmentor, InternViTSegmentor):
        check_test_cfg(segmentor.test_cfg)
    with reading('evaluation, or data for the loader of data.val,'):
        return hook(build_test_loader(run, 'val'), run.device, **options)


def register_custom_hooks(runner: IterBasedRunner, run: Run) -> None:
    """Registers ``custom_hooks`` of the config.

    Raises:
        InputError: If a hook does not work, or there are several of which one alone can.
    """
    averages = [options for options in run.cfg.get('custom_hooks') or []
                if options['type'] == ema.NAME]
    if len(averages) > 1:
        raise InputError(f'custom_hooks has {len(averages)} of type {ema.NAME!r}: expected one, '
                         'whose averages are evaluated and saved')
    for options in run.cfg.get('custom_hooks') or []:
        options = dict(options)
        priority = options.pop('priority', 'NORMAL')
        if options['type'] == ema.NAME:  # comes before checkpoints and evaluations
            with reading('custom_hooks'):
                runner.register_hook(ema.build_ema_hook(options), priority='ABOVE_NORMAL')
            continue
        with reading('custom_hooks'):
            hook = build_from_cfg(options, HOOKS)
        if isinstance(hook, (ToBFloat16Hook, ToFloat16Hook)):
            continue  # The model was built in the precision of these hooks, or of the config.
        with reading('custom_hooks'):
            runner.register_hook(hook, priority=priority)
