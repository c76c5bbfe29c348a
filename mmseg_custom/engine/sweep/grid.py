"""Expands the settings of a sweep into combinations, each with the config of a single run."""
import copy
import os.path as osp
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from itertools import product

from mmcv import Config, ConfigDict

from ...errors import InputError
from ...missing import look_around
from ...models.backbone_options import backbone_option, traits_of
from ..config import heads_of, kind_of
from .partly_trained import check_backbone, set_tuning
from .settings import VARIED, SweepSettings

OUR_MODELS = osp.join(osp.dirname(__file__), '..', '..', '..', 'configs', '_base_', 'models')


@dataclass(frozen=True)
class Combination:
    """One head or run of a sweep.

    Attributes:
        name: Name of its folder, made from its settings.
        settings: Name of a varied setting -> its value.
        cfg: Config with which tools/train.py would train it alone.
    """
    name: str
    settings: dict[str, object]
    cfg: Config


def combinations(cfg: Config) -> list[Combination]:
    """Returns all combinations of ``cfg.sweep``; the last of its lists varies fastest.

    Args:
        cfg: Config with ``sweep`` and ``work_dir``. Models with other heads are searched for in
            the nearest ``_base_`` folder above its file.

    Raises:
        InputError: If a setting is invalid, all of the backbone is trained, or there is no model
            with one of the heads.
    """
    settings = SweepSettings.of(cfg.sweep)
    check_backbone(cfg, settings)
    found = []
    for head in settings.head or [None]:
        model = cfg.model if head in (None, kind_of(cfg.model)) else _with_head(
            cfg, _model_file(head, cfg, settings))
        others = [getattr(settings, name) or [None] for name in VARIED[2:]]
        for values in product([head], _layers(settings, model), *others):
            varied = {name: value for name, value in zip(VARIED, values) if value is not None}
            found.append(_combination(cfg, model, varied))
    return found


def union_of_layers(found: Sequence[Combination]) -> list[int]:
    """Returns the indices of the blocks that any of the heads reads."""
    return sorted({layer for one in found for layer in one.cfg.model.backbone.out_indices})


def label(value: object) -> str:
    """Formats a value for names and tables: '4e-05', '47', '11-23-35-47'."""
    if isinstance(value, (list, tuple)):
        return '-'.join(map(str, value))
    return f'{value:g}' if isinstance(value, float) else str(value)


def _combination(cfg: Config, model: dict, varied: dict) -> Combination:
    short = dict(head='', layers='l', train_last='last', r='r', alpha='alpha', lr='lr',
                 weight_decay='wd')
    name = '_'.join(short[key] + label(value) for key, value in varied.items())
    own = copy.deepcopy(cfg)
    own.pop('sweep')
    own.model = copy.deepcopy(model)
    own.work_dir = osp.join(cfg.work_dir, name)
    layers = varied.get('layers')
    if layers is not None:
        own.model.backbone.out_indices = [layers] if isinstance(layers, int) else list(layers)
        if isinstance(layers, int) and 'in_index' in own.model.decode_head:
            own.model.decode_head.in_index = -1
    set_tuning(own.model.backbone, varied)
    for key in ('lr', 'weight_decay'):
        if key in varied:
            own.optimizer[key] = varied[key]
    return Combination(name, varied, own)


def _layers(settings: SweepSettings, model: dict) -> list:
    """Returns the values of ``layers`` for a head; [None] for the model's own.

    UPerNet, and a mask decoder of several layers, read the lists of as many blocks as they have
    maps; without any, the single blocks if they are as many; otherwise the blocks of their model.
    For a model that is not the config's own, these are the last of each quarter of the network.
    """
    given = settings.layers
    if not given:
        return [None]
    depth = _option(model, 'depth')
    widths = model['decode_head'].get('in_channels')
    read = len(widths) if isinstance(widths, (list, tuple)) else 1
    several = read if read > 1 else 4
    for value in given:
        blocks = [value] if isinstance(value, int) else value
        if len(blocks) not in (1, several) or not all(
                isinstance(b, int) and 0 <= b < depth for b in blocks) or sorted(
                    set(blocks)) != list(blocks):
            raise InputError(f'sweep.layers: {value!r}: expected a block from 0 to {depth - 1}, or '
                             f'{several} of them in ascending order')
    single = [value for value in given if isinstance(value, int)]
    lists = [value for value in given if not isinstance(value, int)]
    if model['backbone'].get('with_fpn') or read > 1:
        return lists or ([tuple(sorted(single))] if len(single) == several else
                         [tuple(model['backbone']['out_indices'])])
    if not single:
        raise InputError(f'sweep.layers: {given!r} has no single block for the '
                         f'{kind_of(model)} head: expected e.g. --layers 23 47')
    return single


def _model_file(head: str, cfg: Config, settings: SweepSettings) -> Config:
    """Finds the config of a model with a head, for backbones of the same width.

    Raises:
        InputError: If there is no such config.
    """
    if head in settings.models:
        file = settings.models[head]
        if not osp.isfile(file):
            raise InputError(f'sweep.models: {file} does not exist{look_around(file)}')
        found = Config.fromfile(file)
        if 'model' not in found or kind_of(found.model) != head:
            raise InputError(f'sweep.models: {file} has no {head} head')
        return found
    width = _option(cfg.model, 'embed_dim')
    for file in _base_models(cfg.filename or ''):
        found = Config.fromfile(file)
        # The heads of a ViT-Adapter read its own maps, not those of a pyramid.
        if 'model' in found and 'decode_head' in found.model and kind_of(
                found.model) == head and _option(found.model, 'embed_dim') == width and (
                traits_of(found.model.backbone).has_frozen_features):
            return found
    raise InputError(f'sweep.head: no model with a {head} head for a backbone of embed_dim={width} '
                     f'in _base_/models: name its config file, sweep.models=dict({head}=FILE)')


def _base_models(path: str) -> list[str]:
    """Returns the files in the nearest ``_base_/models`` above a config, then in this project's."""
    folder, above = None, osp.abspath(path)
    while folder is None and osp.dirname(above) != above:
        above = osp.dirname(above)
        if osp.isdir(osp.join(above, '_base_', 'models')):
            folder = osp.join(above, '_base_', 'models')
    folders = dict.fromkeys(osp.realpath(f) for f in (folder, OUR_MODELS) if f)
    return [file for folder in folders for file in sorted(glob(osp.join(folder, '*.py')))]


def _option(model: dict, name: str) -> int:
    return backbone_option(model.get('backbone', {}), name)


def _with_head(cfg: Config, other: Config) -> ConfigDict:
    """Returns the model of a config with the heads and pyramid of another, for the same classes."""
    model = copy.deepcopy(cfg.model)
    classes = model.decode_head.num_classes
    model.decode_head = copy.deepcopy(other.model.decode_head)
    model.auxiliary_head = copy.deepcopy(other.model.get('auxiliary_head'))
    for _, head in heads_of(model):
        head['num_classes'] = classes
    for name in ('with_fpn', 'with_final_norm'):
        model.backbone[name] = other.model.backbone.get(name, False)
    depth = _option(model, 'depth')
    # The recipes read the last block, or the last of each quarter: 11, 23, 35, 47 of 48.
    model.backbone.out_indices = [round(depth * i / 4) - 1 for i in (
        (1, 2, 3, 4) if model.backbone.with_fpn else (4,))]
    return model
