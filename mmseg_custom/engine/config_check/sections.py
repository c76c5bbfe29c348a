"""The dicts of a config, and what reads each of them."""
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from mmcv.cnn import ACTIVATION_LAYERS, CONV_LAYERS, NORM_LAYERS
from mmcv.runner import HOOKS, OPTIMIZERS, RUNNERS
from mmcv.utils import Registry
from mmseg.core.builder import MMCV_OPTIMIZER_BUILDERS, OPTIMIZER_BUILDERS
from mmseg.core.seg.builder import PIXEL_SAMPLERS
from mmseg.datasets import DATASETS, PIPELINES
from mmseg.models.builder import MODELS

from ...distributed.options import Engine
from ...errors import NEAR_IF_REFUSED, InputError, nearest
from ...plugins import is_known
from ...schema import shorten
from . import tables
from .kinds import ANY, FLAG, NONE, SETTINGS, TEXT, Kind
from .signatures import Reader, reader_of

# Key -> what is built from the dicts under it, and keys that mmcv's builders take out before.
BUILT: dict[str, tuple[Registry, dict[str, Kind]]] = dict(
    backbone=(MODELS, {}), neck=(MODELS, {}), decode_head=(MODELS, {}),
    auxiliary_head=(MODELS, {}), loss_decode=(MODELS, {}), sampler=(PIXEL_SAMPLERS, {}),
    norm_cfg=(NORM_LAYERS, dict(requires_grad=FLAG)), act_cfg=(ACTIVATION_LAYERS, {}),
    conv_cfg=(CONV_LAYERS, {}), pipeline=(PIPELINES, {}), transforms=(PIPELINES, {}),
    dataset=(DATASETS, dict(separate_eval=FLAG)))
PLAIN = dict(train_cfg=tables.TRAIN_CFG, test_cfg=tables.TEST_CFG)
PRIORITY = dict(priority=tables.PRIORITY | NONE)


@dataclass(frozen=True)
class Section:
    """A dict of a config.

    Attributes:
        place: Its key, 'data.train.pipeline.2'; empty for the config itself.
        options: The dict.
        reader: What reads it.
    """
    place: str
    options: Mapping[str, Any]
    reader: Reader

    def key(self, name: str) -> str:
        """Returns the full key of an entry, as ``--cfg-options`` takes it."""
        return f'{self.place}.{name}' if self.place else name


def sections(cfg: Mapping[str, Any]) -> Iterator[Section]:
    """Yields the dicts of a config, each before those within it.

    The values of a dict are to be checked before the next is asked for: those within are reached
    through them.

    Raises:
        InputError: If a type is not registered.
    """
    yield Section('', cfg, Reader('a run', tables.SETTINGS_OF_RUNS, is_closed=False))
    yield from _typed('model', cfg.get('model'), MODELS)
    if _of_known_library(cfg.get('model')):
        for name, known in PLAIN.items():
            yield from _plain(name, cfg.get(name), known)
    yield from _data(cfg.get('data'))
    yield from _optimizer(cfg.get('optimizer'))
    yield from _typed('runner', cfg.get('runner'), RUNNERS)
    yield from _hooks(cfg)
    yield from _plain('custom_imports', cfg.get('custom_imports'), tables.CUSTOM_IMPORTS, True)
    if isinstance(cfg.get('engine'), Mapping):
        yield Section('engine', cfg['engine'], reader_of(Engine))
    yield from _plain('dist_params', cfg.get('dist_params'), tables.LAUNCHING)


def _data(data: Any) -> Iterator[Section]:
    yield from _plain('data', data, tables.DATA, is_closed=True)
    for name, value in _entries(data):
        if name in ('train', 'val', 'test'):
            yield from _typed(f'data.{name}', value, *BUILT['dataset'])
        elif name.endswith('_dataloader'):
            yield from _plain(f'data.{name}', value, tables.LOADER, is_closed=True)


def _optimizer(options: Any) -> Iterator[Section]:
    taken = dict(constructor=TEXT, paramwise_cfg=SETTINGS | NONE)
    yield from _typed('optimizer', options, OPTIMIZERS, taken)
    if not isinstance(options, Mapping):
        return
    name = options.get('constructor', 'DefaultOptimizerConstructor')
    own = isinstance(name, str) and name in OPTIMIZER_BUILDERS.module_dict
    constructor = _registered(OPTIMIZER_BUILDERS if own else MMCV_OPTIMIZER_BUILDERS, name,
                              'optimizer.constructor')
    if not is_known(constructor):
        return
    place, given = 'optimizer.paramwise_cfg', options.get('paramwise_cfg')
    by_depth = tables.LAYER_DECAY.get(constructor.__module__.partition('.')[0])
    yield from _plain(place, given, by_depth or tables.PARAMWISE)
    if by_depth is None:
        keys = _entries((given or {}).get('custom_keys'))
        yield from (Section(f'{place}.custom_keys', {key: value}, Reader(
            'custom_keys', {key: SETTINGS}, is_closed=True)) for key, value in keys)
        for key, value in keys:
            yield from _plain(f'{place}.custom_keys.{key}', value, tables.CUSTOM_KEY)


def _hooks(cfg: Mapping[str, Any]) -> Iterator[Section]:
    for name, kind in (('optimizer_config', 'OptimizerHook'), ('checkpoint_config',
                                                               'CheckpointHook')):
        yield from _as_type(name, cfg.get(name), kind)
    yield from _plain('optimizer_config.grad_clip',
                      (cfg.get('optimizer_config') or {}).get('grad_clip'), tables.GRAD_CLIP, True)
    yield from _policy('lr_config', cfg.get('lr_config'), 'LrUpdaterHook')
    yield from _policy('momentum_config', cfg.get('momentum_config'), 'MomentumUpdaterHook')
    yield from _plain('evaluation', cfg.get('evaluation'),
                      {**_options_of_evaluate(cfg.get('data')), **tables.EVALUATION})
    logs = cfg.get('log_config')
    yield from _plain('log_config', logs, tables.LOG_CONFIG)
    yield from _typed('log_config.hooks', (logs or {}).get('hooks'), HOOKS, PRIORITY)
    yield from _typed('custom_hooks', cfg.get('custom_hooks'), HOOKS, PRIORITY)


def _as_type(place: str, options: Any, kind: str) -> Iterator[Section]:
    """Yields the dict of a hook whose type may be left out."""
    if isinstance(options, Mapping):
        yield from _typed(place, {'type': kind, **options}, HOOKS, PRIORITY)


def _policy(place: str, options: Any, suffix: str) -> Iterator[Section]:
    """Yields the dict of a schedule, whose type mmcv makes of its policy."""
    if not isinstance(options, Mapping):
        return
    policy = options.get('policy')
    if not isinstance(policy, str):
        raise InputError(f"{place}.policy={shorten(policy)}: expected the name of a schedule, e.g. "
                         "'poly'")
    name = f'{policy.title() if policy.islower() else policy}{suffix}'
    if HOOKS.get(name) is None:
        _refuse_type(HOOKS, policy, f'{place}.policy', [
            each.removesuffix(suffix).lower() for each in HOOKS.module_dict
            if each.endswith(suffix) and each != suffix])
    yield from _typed(place, {**options, 'type': name}, HOOKS, dict(policy=TEXT))


def _typed(place: str, options: Any, registry: Registry, taken: Mapping[str, Kind] | None = None
           ) -> Iterator[Section]:
    """Yields a dict with a type, or those of a list, and the dicts within them."""
    if isinstance(options, (list, tuple)):
        for index, each in enumerate(options):
            yield from _typed(f'{place}.{index}', each, registry, taken)
    if not isinstance(options, Mapping):
        return
    target = _registered(registry, options.get('type'), f'{place}.type')
    reader = reader_of(target, {'type': ANY, **(taken or {})})
    yield Section(place, options, reader)
    for name in reader.known & options.keys():
        if name in BUILT:
            yield from _typed(f'{place}.{name}', options[name], *BUILT[name])
        elif name in PLAIN and is_known(target):
            yield from _plain(f'{place}.{name}', options[name], PLAIN[name])


def _plain(place: str, options: Any, known: Mapping[str, Kind], is_closed: bool = False
           ) -> Iterator[Section]:
    if isinstance(options, Mapping):
        yield Section(place, options, Reader(place, dict(known), is_closed))


def _of_known_library(model: Any) -> bool:
    """Returns whether a segmentor reads the settings of training and testing as mmseg's do."""
    return isinstance(model, Mapping) and is_known(_registered(MODELS, model.get('type'),
                                                               'model.type'))


def _options_of_evaluate(data: Any) -> dict[str, Kind]:
    """Returns the options of ``evaluate`` that the validation data sets of plugins have."""
    val = data.get('val') if isinstance(data, Mapping) else None
    found: dict[str, Kind] = {}
    for options in val if isinstance(val, (list, tuple)) else [val]:
        kind = options.get('type') if isinstance(options, Mapping) else None
        evaluate = getattr(DATASETS.get(kind) if isinstance(kind, str) else kind, 'evaluate', None)
        if evaluate is not None and not is_known(evaluate):
            found.update(reader_of(evaluate).parameters)
    return found


def _entries(options: Any) -> list[tuple[str, Any]]:
    return list(options.items()) if isinstance(options, Mapping) else []


def _registered(registry: Registry, name: Any, place: str) -> Callable:
    """Returns what is registered under a name.

    Raises:
        InputError: If there is nothing.
    """
    if inspect.isclass(name) or inspect.isfunction(name):  # mmcv's builder takes these too
        return name
    found = registry.get(name) if isinstance(name, str) else None
    if found is None:
        _refuse_type(registry, name, place, list(registry.module_dict))
    return found


def _refuse_type(registry: Registry, name: Any, place: str, known: list[str]) -> NoReturn:
    near = nearest(name, known, NEAR_IF_REFUSED) if isinstance(name, str) else None
    raise InputError(
        f'{place}={shorten(name)} is not in the {registry.name} registry: '
        + (f'did you mean {near!r}?' if near else
           'correct it, or name the module that registers it in custom_imports'))
