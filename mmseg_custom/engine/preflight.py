"""What is checked of a training between its config and its first iteration.

Labels are looked at (one of each data set, as a rule); no network is built, and no weights are
read.
"""
import inspect
from collections.abc import Mapping

from mmcv import Config
from mmseg.models.builder import HEADS
from mmseg.utils import get_root_logger
from torch.utils.data import Dataset

from ..checkpoint.checkpoint import Checkpoint
from ..datasets.learnable import check_learnable, check_scored
from ..distributed.compiler import require_compiler
from ..errors import InputError
from ..evaluation.metric_names import check_evaluation
from ..losses.mask_matching import require_mask_libraries
from ..models.decode_heads.plain_mask_head import PlainMaskHead
from ..optim import low_memory
from . import classes
from .config import heads_of
from .loggers import check_loggers
from .options import RunOptions


def check_settings(cfg: Config) -> None:
    """Checks that a config has what every training reads, and the packages of its loggers.

    Raises:
        InputError: Naming the key, or the package, that is missing.
    """
    examples = dict(optimizer="dict(type='AdamW', lr=4e-5)",
                    runner="dict(type='IterBasedRunner', max_iters=80000)",
                    lr_config="dict(policy='poly', power=1.0, min_lr=0.0, by_epoch=False), or None "
                    'for a constant rate')
    for name, example in examples.items():
        if name not in cfg or cfg[name] is None and name != 'lr_config':
            raise InputError(f'{name} is missing from the config: set e.g. {name}={example}')
    check_loggers(cfg)
    if _mask_heads(cfg):
        require_mask_libraries()


def check_heads(cfg: Config, train: Dataset, options: RunOptions) -> None:
    """Checks that the heads, and the weights of their losses, are for the classes of the data.

    Raises:
        InputError: If they are not.
    """
    classes.check_heads(cfg, train.CLASSES, classes.may_mean_more(cfg, options))
    classes.check_class_weights(cfg)
    classes.check_single_channels(cfg)


def check_training(cfg: Config, data: Mapping[str, Dataset],
                   start: Checkpoint | None = None) -> None:
    """Checks the data of a training, and what is to be measured on it; logs doubts.

    Args:
        cfg: Resolved config.
        data: Data sets by split: 'train' and, if it is evaluated, 'val'.
        start: Checkpoint whose weights the training starts from.

    Raises:
        InputError: If a metric, the labels or the classes are wrong.
    """
    if 'val' in data:
        check_evaluation(cfg.get('evaluation') or {}, data['val'])
    doubts = _doubts_about_labels(cfg, data) + _doubts_about_queries(cfg)
    if start is not None:
        doubts.append(classes.check_loaded_classes(start, data['train'],
                                                   cfg.get('load_from_without') or ()))
    for doubt in filter(None, doubts):
        get_root_logger().warning('%s', doubt)


def check_test(cfg: Config, dataset: Dataset, checkpoint: Checkpoint | None) -> None:
    """Checks that a network is for the classes of test data; logs doubts.

    Raises:
        InputError: If it is not.
    """
    if checkpoint is not None:
        classes.check_trained_classes(checkpoint, dataset)
    if (doubt := classes.check_ignored(cfg, dataset, 'test')) is not None:
        get_root_logger().warning('%s', doubt)


def check_compiler(cfg: Config, device: str) -> None:
    """Checks that kernels can be compiled where an optimizer needs that on a GPU.

    Raises:
        InputError: If there is no C compiler.
    """
    if device == 'cuda' and (cfg.get('optimizer') or {}).get('type') == low_memory.NAME:
        require_compiler(f'optimizer.type={low_memory.NAME!r}')


def _doubts_about_labels(cfg: Config, data: Mapping[str, Dataset]) -> list[str | None]:
    """Checks that labels can be learnt from, and mean the same where they are scored.

    Returns:
        Warnings, and None where there is none.

    Raises:
        InputError: If they cannot, or the numbers of classes differ.
    """
    doubts: list[str | None] = [*classes.check_joined_classes(data['train']),
                                *check_learnable(data['train'])]
    if 'val' in data:
        doubts += [classes.check_scored_classes(data['train'], data['val']),
                   classes.check_label_numbers(data['train'], data['val']),
                   classes.check_ignored(cfg, data['val'], 'val'), *check_scored(data['val'])]
    return doubts


def _mask_heads(cfg: Config) -> list[tuple[str, dict]]:
    """Returns keys and configs of the heads that predict masks."""
    kinds = ((key, head, HEADS.get(head.get('type', ''))) for key, head in heads_of(cfg.model))
    return [(key, head) for key, head, kind in kinds
            if isinstance(kind, type) and issubclass(kind, PlainMaskHead)]


def _doubts_about_queries(cfg: Config) -> list[str | None]:
    """Returns warnings of heads with fewer queries than classes, which an image may all have."""
    defaults = inspect.signature(PlainMaskHead).parameters
    doubts: list[str | None] = []
    for key, head in _mask_heads(cfg):
        queries = head.get('num_queries', defaults['num_queries'].default)
        if queries < head['num_classes']:
            doubts.append(f'{key}.num_queries={queries} is less than num_classes='
                          f'{head["num_classes"]}: a crop with more than {queries} classes would '
                          'stop the training')
    return doubts
