"""Builds the runner of a training with its hooks, as the config says."""
import copy
import logging

from mmcv.runner import HOOKS, RUNNERS, BaseRunner, IterBasedRunner, build_runner
from mmcv.utils import build_from_cfg
from mmseg.core import build_optimizer
from torch import nn

from ..distributed.parallelize import unwrap
from ..errors import InputError, some_of
from ..models.segmentors.encoder_decoder import InternViTSegmentor
from ..models.segmentors.window_inference import check_test_cfg
from ..optim.fused import with_fused
from . import ema
from .blame import reading
from .evaluation_hook import SegEvalHook
from .hooks import ToBFloat16Hook, ToFloat16Hook
from .last_save import LastSave
from .loaders import build_test_loader
from .mask_annealing import MaskAnnealingHook, annealed_heads
from .preemption import PreemptionHook
from .randomness import SeedHook
from .run import Run
from .runner import SegRunner


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
        checkpoints = {'background': None, **checkpoints, 'last_save': last_save}
    _warn_of_unused_keys(cfg.optimizer, model, logger)
    with reading('optimizer'):
        optimizer = build_optimizer(model, with_fused(
            cfg.optimizer, run.engine.is_on('fused_optimizer'), run.engine.fused_optimizer is True,
            run.device))
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
    with reading('lr_config, optimizer_config, checkpoint_config, log_config or momentum_config'):
        runner.register_training_hooks(
            cfg.get('lr_config'), cfg.get('optimizer_config') or {}, checkpoints,
            cfg.get('log_config'), cfg.get('momentum_config'))
    runner.register_hook(SeedHook(run.rank_seed))
    return runner


def _warn_of_unused_keys(options: dict, model: nn.Module, logger: logging.Logger) -> None:
    keys = (options.get('paramwise_cfg') or {}).get('custom_keys') or ()
    names = [name for name, _ in model.named_parameters()]
    unused = [key for key in keys if not any(key in name for name in names)]
    if unused:
        logger.warning('optimizer.paramwise_cfg.custom_keys: no parameter has %s in its name',
                       some_of(map(repr, unused)))


def _warn_of_no_evaluation(options: dict, runner: BaseRunner) -> None:
    first = options.get('start') or options.get('interval', 1)
    if isinstance(runner, IterBasedRunner) and first > runner.max_iters:
        runner.logger.warning('the first evaluation is due in iteration %d, the run ends with %d: '
                              'nothing is evaluated, and no best checkpoint saved; set '
                              'evaluation.interval lower, or give --no-validate', first,
                              runner.max_iters)


def build_evaluation(run: Run, runner: BaseRunner, hook: type[SegEvalHook] = SegEvalHook,
                     preemption: PreemptionHook | None = None) -> SegEvalHook:
    """Builds the hook that evaluates during training, as ``evaluation`` of the config says."""
    options = {**(run.cfg.get('evaluation') or {}),
               'by_epoch': not isinstance(runner, IterBasedRunner)}
    _warn_of_no_evaluation(options, runner)
    segmentor = unwrap(runner.model)
    if isinstance(segmentor, InternViTSegmentor):
        check_test_cfg(segmentor.test_cfg)
    with reading('evaluation, or data for the loader of data.val,'):
        return hook(build_test_loader(run, 'val'), run.device, preemption=preemption, **options)


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
            if priority not in ('NORMAL', 'ABOVE_NORMAL'):
                runner.logger.warning('EMAHook: priority=%r has no effect: averages are updated '
                                      'before they are saved and evaluated', priority)
            with reading('custom_hooks'):
                runner.register_hook(ema.build_ema_hook(options), priority='ABOVE_NORMAL')
            continue
        with reading('custom_hooks'):
            hook = build_from_cfg(options, HOOKS)
        if isinstance(hook, (ToBFloat16Hook, ToFloat16Hook)):
            continue  # The model was built in the precision of these hooks, or of the config.
        with reading('custom_hooks'):
            runner.register_hook(hook, priority=priority)
    if annealed_heads(unwrap(runner.model)) and not any(
            isinstance(hook, MaskAnnealingHook) for hook in runner.hooks):
        runner.register_hook(MaskAnnealingHook())
