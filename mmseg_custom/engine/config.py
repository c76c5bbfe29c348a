"""Config file + command line -> the config of a run."""
import importlib.util
import os.path as osp
from collections.abc import Sequence

from mmcv import Config
from mmseg.utils import get_root_logger

from ..errors import InputError

TTA_RATIOS = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]


def load_config(path: str, options: dict | None = None) -> Config:
    """Reads a config and applies ``--cfg-options``.

    Raises:
        InputError: If the file is not there or is no config.
    """
    if not osp.isfile(path):
        raise InputError(f'config {path} does not exist: see configs/ for those that do')
    try:
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(options or {})
    except (SyntaxError, KeyError, TypeError) as error:
        raise InputError(f'config {path}: {error}') from error
    for key in ('model', 'data'):
        if key not in cfg:
            raise InputError(f'config {path} has no {key!r}: expected an MMSegmentation 0.30 '
                             'config')
    return cfg


def default_work_dir(path: str) -> str:
    """``work_dirs/<name of the config>``, mmseg's convention."""
    return osp.join('./work_dirs', osp.splitext(osp.basename(path))[0])


def translate(cfg: Config) -> None:
    """Brings configs of the original, and older ones of mmseg, to what this engine reads."""
    logger = get_root_logger()
    if cfg.get('runner') is None:
        cfg.runner = dict(type='IterBasedRunner', max_iters=cfg.total_iters)
    if cfg.get('checkpoint_config'):
        cfg.checkpoint_config.pop('deepspeed', None)
    if cfg.get('deepspeed'):
        logger.info("deepspeed=True of the config is not needed: the engine here is PyTorch's own")
    hooks = cfg.get('log_config', {}).get('hooks', [])
    if importlib.util.find_spec('tensorboard') is None:
        for hook in [h for h in hooks if h['type'] == 'TensorboardLoggerHook']:
            hooks.remove(hook)
            logger.warning('no TensorBoard log: the package tensorboard is not installed')
    evaluation = cfg.setdefault('evaluation', {})
    if evaluation.get('save_best') == 'auto':
        # mmseg returns aAcc first, and 'auto' takes the first: the original kept the checkpoint
        # with the best pixel accuracy.
        evaluation['save_best'] = 'mIoU'
        logger.info("evaluation.save_best='auto' means mIoU here")


def without_pretrained(cfg: Config) -> str | None:
    """Takes the pretrained file out: a checkpoint is to bring all weights.

    Returns:
        The file that the backbone would have read.
    """
    cfg.model.pretrained = None
    backbone = cfg.model.get('backbone', {})
    pretrained = backbone.get('pretrained')
    if pretrained is not None:
        backbone.pretrained = None
    return pretrained


def augment_test(cfg: Config) -> None:
    """``--aug-test``: six scales and flips, as mmseg has them."""
    for step in cfg.data.test.pipeline:
        if step.type == 'MultiScaleFlipAug':
            step.img_ratios = TTA_RATIOS
            step.flip = True
            return
    raise InputError('--aug-test: data.test.pipeline has no MultiScaleFlipAug step')


def other_classes(cfg: Config, classes: Sequence[str]) -> list[tuple[str, int]]:
    """(key, value) of each ``num_classes`` that is not the number of classes of the data."""
    found = []
    for key in ('decode_head', 'auxiliary_head'):
        heads = cfg.model.get(key) or []
        for head in heads if isinstance(heads, list) else [heads]:
            number = head.get('num_classes', len(classes))
            if number != len(classes):
                found.append((f'model.{key}.num_classes', number))
    return found


def check_classes(cfg: Config, classes: Sequence[str]) -> None:
    """Compares the heads with the classes of the training data.

    Raises:
        InputError: If a head has fewer classes, which a loss meets as an index out of range.
    """
    for key, number in other_classes(cfg, classes):
        text = (f'{key} is {number}, and the training data has {len(classes)} classes '
                f'({", ".join(name.strip() for name in classes[:3])} ...): set it to '
                f'{len(classes)}')
        if number < len(classes):
            raise InputError(text)
        get_root_logger().warning('%s', text)


def loader_options(cfg: Config, split: str) -> dict:
    """The options of ``data`` for the loader of 'train', 'val' or 'test'."""
    parts = ('train', 'val', 'test')
    loaders = tuple(f'{part}_dataloader' for part in parts)
    shared = {k: v for k, v in cfg.data.items() if k not in parts + loaders}
    if split != 'train':
        shared['samples_per_gpu'] = 1
    return {**shared, **cfg.data.get(f'{split}_dataloader', {})}
