"""What the config alone tells of a run, checked before anything is started, read or built.

What needs the data or the weights is checked by :mod:`.preflight`. The network is built on the meta
device, which takes 0.04 s for the backbone of 6B and no memory.
"""
import copy
import logging
import os.path as osp
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mmcv import Config
from mmcv.runner import HOOKS, OPTIMIZERS
from mmcv.utils import build_from_cfg
from mmseg.core import build_optimizer
from mmseg.models.builder import MODELS
from torch import nn

from ..checkpoint.backbone_file import check_exists
from ..checkpoint.deepspeed import find_states
from ..checkpoint.folders import is_adapter_folder
from ..checkpoint.work_dir import checkpoints_in
from ..choices import UNTRAINED
from ..datasets.class_names import class_names
from ..datasets.described import DescribedDataset
from ..datasets.description import read_description
from ..datasets.nesting import innermost_options
from ..distributed.memory import STATELESS
from ..distributed.options import Engine
from ..errors import InputError
from ..evaluation.metric_names import check_kind_gives, check_kind_measures, metrics_of
from ..models.backbone_options import backbone_class, backbone_option, traits_of
from ..models.segmentors.encoder_decoder import InternViTSegmentor
from ..models.segmentors.window_inference import check_test_cfg
from ..optim import low_memory
from ..plugins import is_known
from . import classes, preflight
from .blame import reading
from .build import build_network
from .cached.key import WITH_ADAPTER, check_tuning
from .cached.settings import CacheSettings
from .epochs import check_length
from .foreign_settings import read_workflow
from .input_checks import check_inputs, check_normalization
from .options import RunOptions
from .sweep.grid import combinations
from .tuning import shares_feature_maps, tuning_in


def check_before_start(cfg: Config, options: RunOptions, splits: Collection[str]) -> None:
    """Checks what the config alone tells of a run.

    Args:
        cfg: Resolved config.
        options: Options of the command line.
        splits: Data sets that the run builds: 'train', 'val', 'test'.

    Raises:
        InputError: If something is wrong for certain; doubts are for :mod:`.preflight`.
    """
    tests = 'test' in splits
    trains = options.owns_work_dir and not tests
    evaluates = 'val' in splits and not options.no_validate
    _check_files(cfg, options, trains)
    if not tests and cfg.get('feature_cache'):
        CacheSettings.of(cfg.feature_cache)
        _check_cached(cfg)
    if trains:
        preflight.check_settings(cfg)
        Engine.of(cfg.get('engine'))
        check_length(cfg)
        read_workflow(cfg.get('workflow'))
        _check_schedules(cfg)
        _check_optimizer(cfg.optimizer)
        if cfg.get('sweep'):
            combinations(cfg)
    _check_classes(cfg, options, splits, evaluates)
    if evaluates:
        _check_metrics(cfg)
    if tests or evaluates:
        _check_windows(cfg)
    check_inputs(cfg)
    check_normalization(cfg, splits)
    for each in _networks(cfg, trains):
        _check_network(each, trains)


def _check_files(cfg: Config, options: RunOptions, trains: bool) -> None:
    """Checks that the checkpoints and the pretrained file that a run begins with exist."""
    for name in ('resume_from', 'load_from') if trains else ():
        path = cfg.get(name)
        if path and not osp.exists(path) and not (options.auto_resume and name == 'load_from'):
            raise InputError(f'{name}={path!r} ' + (
                'is an address: download the file first, and give its path' if '://' in path
                else 'does not exist: correct the path'))
    if trains and options.auto_resume and osp.isdir(cfg.work_dir):
        _refuse_work_dir_of_deepspeed(cfg.work_dir)
    if options.checkpoint not in (None, UNTRAINED) and not osp.exists(options.checkpoint):
        raise InputError(f'checkpoint {options.checkpoint} does not exist')
    backbone = cfg.model.get('backbone') or {}
    traits = traits_of(backbone)
    pretrained = backbone_option(backbone, 'pretrained') if traits.is_ours else None
    begins_elsewhere = cfg.get('load_from') or cfg.get('resume_from') or options.auto_resume
    if trains and not begins_elsewhere and isinstance(pretrained, str) and pretrained:
        check_exists(pretrained, backbone_class(backbone).weights_advice)
    folder = (backbone.get('adapt') or {}).get('pretrained') if traits.is_tunable else None
    if trains and not begins_elsewhere and folder and not is_adapter_folder(str(folder)):
        raise InputError(f'model.backbone.adapt.pretrained={folder!r} ' + (
            'holds no adapter_config.json' if osp.isdir(str(folder)) else
            'is no folder' if osp.exists(str(folder)) else 'does not exist')
            + ": expected a folder of peft's adapters")


def _refuse_work_dir_of_deepspeed(work_dir: str) -> None:
    """Refuses to begin anew beside a run of DeepSpeed that was to be resumed."""
    held = [*checkpoints_in(work_dir), *checkpoints_in(work_dir, 'epoch')]
    states = None if held else find_states(work_dir)
    if states is not None:
        raise InputError(f'--auto-resume: work dir {work_dir} holds checkpoints of DeepSpeed '
                         'alone, whose optimizer is not read: start a new run from the weights '
                         f'with --load-from {states} and another --work-dir')


def _check_cached(cfg: Config) -> None:
    """Checks that runs leave something of a backbone frozen, which a feature cache can hold."""
    backbone = cfg.model.get('backbone') or {}
    if traits_of(backbone).changes_tokens:
        raise InputError(WITH_ADAPTER)
    if not traits_of(backbone).has_frozen_features:
        return
    swept = [one.cfg.model.backbone for one in combinations(cfg)] if cfg.get('sweep') else []
    for options in swept or [backbone]:
        check_tuning(tuning_in(options))


def _check_schedules(cfg: Config) -> None:
    """Builds the schedules of mmcv, whose constructors compare their options with each other."""
    for name, suffix in (('lr_config', 'LrUpdaterHook'),
                         ('momentum_config', 'MomentumUpdaterHook')):
        options = copy.deepcopy(dict(cfg.get(name) or {}))
        policy = options.pop('policy', None)
        if policy is None:
            continue
        options['type'] = f'{policy.title() if policy.islower() else policy}{suffix}'
        if is_known(HOOKS.get(options['type'])):
            with reading(name):
                build_from_cfg(options, HOOKS)


def _check_optimizer(options: dict) -> None:
    """Builds an optimizer of a single weight, whose constructor checks the ranges of its options.

    What an optimizer raises of the device, or of the kind of a weight, is left to the run.
    """
    if options['type'] == low_memory.NAME or not is_known(OPTIMIZERS.get(options['type'])):
        return
    plain = {name: value for name, value in options.items() if name not in STATELESS}
    with reading('optimizer'), suppress(RuntimeError):
        build_optimizer(nn.Linear(1, 1, bias=False), copy.deepcopy(plain))


def classes_by_config(options: Any) -> list[tuple[str, ...]]:
    """Lists the class names of data sets, as far as their configs tell, each once.

    Data sets of plugins may give ``classes`` a meaning of their own, and are left out.

    Args:
        options: Config of a data set, or a list of them.

    Raises:
        InputError: If a data set has no such classes, or their file does not exist.
    """
    found: dict[tuple[str, ...], None] = {}
    for one in innermost_options(options):
        kind = classes.kind_of(one)
        if kind is None or not is_known(kind):
            continue
        if issubclass(kind, DescribedDataset):
            found[tuple(read_description(one['description']).classes)] = None
            continue
        known = getattr(kind, 'CLASSES', None)
        names = one.get('classes') or known
        if names is not None:
            found[tuple(class_names(names, known, one['type']))] = None
    return list(found)


def _check_classes(cfg: Config, options: RunOptions, splits: Collection[str],
                   evaluates: bool) -> None:
    """Compares the classes of the heads and of the data sets."""
    of_split = {split: classes_by_config(cfg.data[split]) for split in splits
                if split in cfg.data and (split != 'val' or evaluates)}
    trained = of_split.get('train', [])
    for names in trained:
        classes.check_heads(cfg, names, classes.may_mean_more(cfg, options), warns=False)
    if len(trained) == 1:
        for names in of_split.get('val', []):
            classes.compare_scored(trained[0], names, classes.measure_alike(
                map(classes.kind_of, innermost_options(cfg.data.val))))
    for names in of_split.get('test', []):
        classes.check_tested_head(cfg, names)


def _check_metrics(cfg: Config) -> None:
    options = cfg.get('evaluation') or {}
    metrics, best = metrics_of(options), options.get('save_best')
    parts = innermost_options(cfg.data.val) if 'val' in cfg.data else []
    kinds = [kind for one in parts if (kind := classes.kind_of(one)) is not None]
    for kind in kinds:
        check_kind_measures(kind, metrics, 'evaluation.metric')
    names = classes_by_config(parts)
    if best not in (None, 'auto') and len(kinds) == len(names) == 1:
        check_kind_gives(kinds[0], names[0], metrics, best)


def _check_windows(cfg: Config) -> None:
    kind = MODELS.get(cfg.model.get('type'))
    if isinstance(kind, type) and issubclass(kind, InternViTSegmentor):
        check_test_cfg(cfg.model.get('test_cfg') or cfg.get('test_cfg'))


def _networks(cfg: Config, trains: bool) -> list[Config]:
    """Returns configs with all the networks that a run builds, each of other weights once.

    A sweep of a partly trained backbone builds several; heads share a single one.
    """
    found = {'': cfg}
    if trains and cfg.get('sweep') and not shares_feature_maps(cfg):
        found.update((str(one.cfg.model), one.cfg) for one in combinations(cfg))
    return list(found.values())


def _check_network(cfg: Config, trains: bool) -> None:
    """Builds a network of this package on the meta device, without a word and without a GPU.

    Parts of plugins may compute values as they are built, which there are none of: only what they
    would raise anywhere is an error here.
    """
    backbone = cfg.model.get('backbone') or {}
    if not traits_of(backbone).is_ours:
        return
    cfg = copy.deepcopy(cfg)
    if traits_of(backbone).is_internvit:
        flash = backbone.get('use_flash_attn')  # the choice of a kernel asks the GPU
        cfg.model.backbone.use_flash_attn = [False] * len(flash) if isinstance(
            flash, (list, tuple)) else False
    try:
        with _silence():
            build_network(cfg, on_meta=True, trained=trains)
    except InputError as error:
        if not isinstance(error.__cause__, RuntimeError):
            raise
    except Exception:
        return  # The run builds the same, and shows where it fails.


@contextmanager
def _silence() -> Iterator[None]:
    """Leaves what is logged and warned of to the network that the run builds."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)
