"""Sweeps of backbones that are trained in part: LoRA, or the last blocks.

Such a backbone gives other feature maps after each step, so that no two combinations share a pass:
each is a run of its own (:mod:`.separate_runs`).
"""
from collections.abc import Mapping, Sequence
from typing import Any

from mmcv import Config, ConfigDict
from mmseg.utils import get_root_logger

from ...errors import InputError, some_of
from ...models.backbone_options import backbone_option, traits_of
from ...models.tuning import LAST_BLOCKS, LORA, PARTLY
from ..tuning import num_read, tuning_in, tuning_of_sweep
from .settings import SweepSettings


def set_tuning(backbone: ConfigDict, varied: Mapping[str, Any]) -> None:
    """Sets what a combination trains of the backbone."""
    if 'train_last' in varied:
        backbone.update(train_last=varied['train_last'], freeze_vit=False)
    for name in ('r', 'alpha'):
        if name in varied:
            backbone.adapt[name] = varied[name]


def check_backbone(cfg: Config, settings: SweepSettings) -> None:
    """Checks that a sweep knows the backbone, and varies only what that has.

    Raises:
        InputError: If not.
    """
    backbone = cfg.model.backbone
    if not traits_of(backbone).has_frozen_features:
        raise InputError(f'sweep: model.backbone.type={backbone.get("type")!r}: expected '
                         'InternViT6B or FrozenViT, whose frozen feature maps heads can share')
    tuning = tuning_of_sweep(cfg)
    if settings.train_last and tuning == LORA:
        raise InputError(f'sweep.train_last={settings.train_last} with model.backbone.adapt: '
                         'either adapters or the last blocks are trained: leave one of them out')
    for name in ('r', 'alpha'):
        if getattr(settings, name) and tuning != LORA:
            other = ' and trains its last blocks' if tuning == LAST_BLOCKS else ''
            raise InputError(f'sweep.{name}={getattr(settings, name)}: the backbone has no '
                             f'adapters{other}: expected model.backbone.adapt, e.g. --cfg-options '
                             'model.backbone.adapt.type=lora')
    if tuning in PARTLY:
        _refuse_settings_of_heads(settings)
    elif tuning == 'full' or backbone.get('unfreeze_pos_embed'):
        raise InputError('sweep: the backbone is trained, and heads cannot share its feature maps: '
                         'set model.backbone.freeze_vit=True (and unfreeze_pos_embed=False), or '
                         'train a part of it: model.backbone.adapt, train_last')


def log_passes(backbones: Sequence[Mapping], cached: bool) -> None:
    """Says before the runs of a sweep start what they share, and how much is computed in all.

    Args:
        backbones: Options of the backbone of each run.
        cached: Whether they train on feature caches.
    """
    logger, tunings = get_root_logger(), [tuning_in(backbone) for backbone in backbones]
    first = sorted({tuning.first_trained for tuning in tunings})
    work = sum(_work(backbone, cached) for backbone in backbones)
    kind = 'LoRA runs' if tunings[0].kind == LORA else 'runs that train blocks'
    logger.info('sweep: %s share no feature maps: %d run(s) in all, one after another, which '
                'compute as much as about %.3g passes of the frozen backbone', kind,
                len(tunings), work)
    frozen = [number for number in first if number]
    if cached:
        logger.info('sweep: the blocks before the first trained one are computed once, for %d '
                    'feature cache(s): before block %s', len(first), some_of(first))
    elif frozen:
        alone = sum(_work(backbone, cached=True) for backbone in backbones)
        logger.info('sweep: %.0f %% of this are frozen blocks, which a feature_cache would compute '
                    'once for all runs (docs/feature_cache.md)', 100 * (1 - alone / work))


def _work(backbone: Mapping, cached: bool) -> float:
    """Estimates the work of an iteration of a run, in passes of the frozen backbone.

    A block's backward pass takes as long as a forward pass for the gradients of its inputs, and
    as long again for those of its weights, which adapters spare.
    """
    tuning, read = tuning_in(backbone), num_read(backbone)
    trained, recomputes = read - tuning.first_trained, bool(backbone_option(backbone, 'with_cp'))
    passes = 1 + recomputes + (1 if tuning.kind == LORA else 2)
    return ((0 if cached else tuning.first_trained) + trained * passes) / read


def _refuse_settings_of_heads(settings: SweepSettings) -> None:
    for name in ('heads_at_once', 'batched'):
        value = getattr(settings, name)
        if value:
            raise InputError(f'sweep.{name}={value}: where a part of the backbone is trained, the '
                             f'combinations are runs of their own, one after another: leave {name} '
                             'out')
