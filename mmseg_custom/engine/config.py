"""Loads the config of a run and resolves it, once; after that it is read and never written."""
import copy
import importlib.util
import os.path as osp
from collections.abc import Mapping

from mmcv import Config

from ..datasets.nesting import innermost_options, named_pipelines
from ..errors import InputError, words_of
from ..missing import look_around
from ..models.backbone_options import backbone_option
from .config_check import check_config
from .config_file import read_config
from .deepspeed import replace_deepspeed
from .foreign_settings import replace_foreign_settings
from .options import RunOptions

TTA_RATIOS = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]


def load_config(path: str, options: dict | None = None, trains: bool = True) -> Config:
    """Reads a config and applies ``--cfg-options``.

    Args:
        path: Config file.
        options: Options of ``--cfg-options``: key, with dots -> value.
        trains: Whether the settings of a training are read, and not those of a test alone.

    Raises:
        InputError: If the file does not exist or is not a config, or one of its keys or values
            cannot be what was meant: see :mod:`.config_check.check`.
    """
    return load_checked_config(path, options, trains)[0]


def load_checked_config(path: str, options: dict | None = None, trains: bool = True,
                        sweep: Mapping[str, object] | None = None) -> tuple[Config, list[str]]:
    """Reads a config as :func:`load_config` does.

    Args:
        path: Config file.
        options: Options of ``--cfg-options``: key, with dots -> value.
        trains: Whether the settings of a training are read, and not those of a test alone.
        sweep: Settings of a sweep that replace those of the config.

    Returns:
        The config, and its keys that nothing is known to read.

    Raises:
        InputError: See :func:`load_config`.
    """
    if not osp.isfile(path):
        raise InputError(f'config {path} does not exist'
                         f'{look_around(path, "see configs/ for the recipes")}')
    cfg = read_config(path)
    try:
        cfg.merge_from_dict(options or {})
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f'config {path}, --cfg-options: {words_of(error)}') from error
    for key in ('model', 'data'):
        if key not in cfg:
            raise InputError(f'config {path} has no {key!r}: expected an MMSegmentation 0.30 '
                             'config')
    if sweep is not None:
        cfg.sweep = {**(cfg.get('sweep') or {}), **sweep}
    return cfg, check_config(cfg, options, trains)


def default_work_dir(path: str) -> str:
    """Returns ``work_dirs/<name of the config>``, mmseg's convention."""
    return osp.join('./work_dirs', osp.splitext(osp.basename(path))[0])


def resolve_config(cfg: Config, options: RunOptions) -> tuple[Config, list[str]]:
    """Gives every setting of a run its final value.

    Keys of InternVL's and of older mmseg configs are translated to those that are read here.

    Args:
        cfg: Config as loaded; it is not changed.
        options: Options of the command line, which take precedence.

    Returns:
        Resolved config, and a log line for each setting that has no or another effect.

    Raises:
        InputError: If ``--aug-test`` is asked for and the test pipeline has no such step, or
            ``load_from_without`` is no list of names; or see :mod:`.deepspeed`.
    """
    filename, cfg = cfg.filename, copy.deepcopy(cfg)  # with its nested dicts
    work_dir = options.work_dir or (None if options.checkpoint else cfg.get('work_dir'))
    cfg.work_dir = work_dir or default_work_dir(filename or 'config.py')
    for name in ('load_from', 'load_from_without', 'resume_from', 'total_batch'):
        given = getattr(options, name)
        cfg[name] = cfg.get(name) if given in (None, '') else given
    _check_parts(cfg, options)
    if options.engine:
        cfg.engine = {**(cfg.get('engine') or {}), 'type': options.engine}
    if cfg.get('runner') is None and cfg.get('total_iters') is not None:
        cfg.runner = dict(type='IterBasedRunner', max_iters=cfg.total_iters)
    elif cfg.get('runner') is None and cfg.get('total_epochs') is not None:
        cfg.runner = dict(type='EpochBasedRunner', max_epochs=cfg.pop('total_epochs'))
    for name in ('max_iters', 'max_epochs'):
        length = (cfg.get('runner') or {}).get(name)
        if isinstance(length, float) and length.is_integer():  # people write 8e4
            cfg.runner[name] = int(length)
    if options.aug_test:
        _augment_test(cfg)
    return cfg, [*replace_deepspeed(cfg, options, filename), *_without_tensorboard(cfg),
                 *_best_by_miou(cfg), *replace_foreign_settings(cfg, options)]


def _check_parts(cfg: Config, options: RunOptions) -> None:
    """Checks ``load_from_without``, a setting of trainings."""
    parts = cfg.load_from_without
    if isinstance(parts, str):
        cfg.load_from_without = parts = [parts]
    if parts is not None and not (isinstance(parts, (list, tuple))
                                  and all(isinstance(part, str) and part for part in parts)):
        raise InputError(f'load_from_without={parts!r}: expected parts of the network, e.g. '
                         "['decode_head.conv_seg']")
    trains = options.owns_work_dir and options.checkpoint is None
    if parts and trains and not (cfg.load_from or cfg.resume_from):
        raise InputError(f'load_from_without={list(parts)} without load_from: give --load-from too')


def _without_tensorboard(cfg: Config) -> list[str]:
    hooks = (cfg.get('log_config') or {}).get('hooks', [])
    found = [hook for hook in hooks if hook['type'] == 'TensorboardLoggerHook']
    if not found or importlib.util.find_spec('tensorboard') is not None:
        return []
    cfg.log_config.hooks = [hook for hook in hooks if hook not in found]
    return ['no TensorBoard log: the package tensorboard is not installed']


def _best_by_miou(cfg: Config) -> list[str]:
    # mmseg returns aAcc first and 'auto' takes the first metric, so InternVL's code kept the
    # checkpoint with the best pixel accuracy.
    if cfg.get('evaluation') is None:
        cfg.evaluation = {}
    if cfg.evaluation.get('save_best') != 'auto':
        return []
    metrics = cfg.evaluation.get('metric', 'mIoU')
    best = metrics if isinstance(metrics, str) else 'mIoU' if 'mIoU' in metrics else metrics[0]
    cfg.evaluation['save_best'] = best
    return [f"evaluation.save_best='auto' means {best} here"]


def _augment_test(cfg: Config) -> None:
    """Adds six scales and flips to the test pipeline, as mmseg's ``--aug-test`` does."""
    for name, pipeline in named_pipelines(cfg.data.test) or [('pipeline', [])]:
        views = [step for step in pipeline if step['type'] == 'MultiScaleFlipAug']
        if not views:
            raise InputError(f'--aug-test: data.test.{name} has no MultiScaleFlipAug step')
        views[0].update(img_ratios=TTA_RATIOS, flip=True)


def loader_options(cfg: Config, split: str) -> dict:
    """Returns the options of ``data`` for the loader of 'train', 'val' or 'test'.

    Raises:
        InputError: If they lack the number of samples or workers.
    """
    parts = ('train', 'val', 'test')
    loaders = tuple(f'{part}_dataloader' for part in parts)
    shared = {k: v for k, v in cfg.data.items() if k not in parts + loaders}
    if split != 'train':
        shared['samples_per_gpu'] = 1
    options = {**shared, **cfg.data.get(f'{split}_dataloader', {})}
    for name in ('samples_per_gpu', 'workers_per_gpu'):
        if name not in options:
            raise InputError(f'data.{name} is missing from the config: set e.g. data.{name}=2')
    return options


def kind_of(model: dict) -> str:
    """Returns 'linear', 'upernet', or the type of any other head."""
    head = model['decode_head']
    if head['type'] == 'FCNHead' and head.get('with_norm') and head.get('num_convs') == 0:
        return 'linear'
    return 'upernet' if head['type'] == 'UPerHead' else head['type']


def heads_of(model: dict) -> list[tuple[str, dict]]:
    """Lists (key, config) of all heads of a segmentor: decode heads, then auxiliary ones."""
    found = []
    for name in ('decode_head', 'auxiliary_head'):
        heads = model.get(name) or []
        if isinstance(heads, (list, tuple)):
            found += [(f'model.{name}.{i}', head) for i, head in enumerate(heads)]
        else:
            found.append((f'model.{name}', heads))
    return found


def losses_of(head: dict) -> list[tuple[str, dict]]:
    """Lists (key, config) of the losses of a head, with keys relative to the head's."""
    losses = head.get('loss_decode') or dict(type='CrossEntropyLoss')  # as mmseg's heads
    if isinstance(losses, (list, tuple)):
        return [(f'loss_decode.{i}', loss) for i, loss in enumerate(losses)]
    return [('loss_decode', losses)]


def crop_of(cfg: Config) -> tuple[int, int]:
    """Returns height and width, in pixels, of the training images after their pipeline."""
    for step in reversed(innermost_options(cfg.data.train)[0].get('pipeline') or []):
        size = step.get('size') or step.get('crop_size')
        if step['type'] in ('Pad', 'PadShortSide', 'RandomCrop') and size is not None:
            return (size, size) if isinstance(size, int) else tuple(size)
    size = cfg.get('crop_size') or backbone_option(cfg.model.backbone, 'img_size')
    return (size, size) if isinstance(size, int) else tuple(size)
