"""What a cache is of: everything that its content depends on, and nothing else.

Two runs with the same answer share a cache; whatever differs makes another one. Left out is what
does not change a frozen map: the head and the pyramid, the run's own seed and schedule, the number
of ranks and workers, where the data lie, the kernels (whose last bits may differ).
"""
import hashlib
import inspect
import json
import os
from collections.abc import Iterator

import torch
from mmcv import Config
from torch import nn
from torch.utils.data import Dataset

from ...checkpoint.provenance import sha256_of, weights_source_of
from ...errors import InputError
from ..build import compute_dtype
from ..identity import HARMLESS, image_names

# Of the backbone: what comes after the frozen maps, what a frozen network does not do.
AFTER = {'with_fpn', 'with_final_norm', 'freeze_vit', 'drop_path_rate', 'pretrain_size',
         'unfreeze_pos_embed'}
PLACES = {'data_root', 'img_dir', 'ann_dir', 'split', 'max_image_num', 'few_shot'}  # -> the list


def describe(cfg: Config, model: nn.Module, dataset: Dataset, seed: int) -> dict:
    """What the cache of a run is of, as plain values.

    Args:
        cfg: The run's config.
        model: Its segmentor with its weights, in its dtypes, unwrapped.
        dataset: What it trains on.
        seed: Of the views.

    Raises:
        InputError: If the maps of this backbone do change in training.
    """
    check_frozen(model)
    dtype = compute_dtype(cfg, model)
    of = dict(
        format=1, weights=weights_of(model.backbone), backbone=_settings(cfg, model.backbone),
        computed_in=str(dtype).removeprefix('torch.'), data=_without(cfg.data.train, PLACES),
        images=images_of(dataset), seed=seed)
    return json.loads(json.dumps(of, sort_keys=True, default=str))


def check_frozen(model: nn.Module) -> None:
    """Refuses a backbone whose maps would not stay what they are.

    Raises:
        InputError: Naming the setting.
    """
    backbone = model.backbone
    if not hasattr(backbone, 'frozen_features'):
        raise InputError(f'feature_cache: the backbone {type(backbone).__name__} has no frozen '
                         'maps: expected InternViT6B; leave feature_cache out')
    if any(p.requires_grad for name, p in backbone.named_parameters()
           if not name.startswith('up')):
        raise InputError('feature_cache: the backbone is trained, its maps change with every step: '
                         'set model.backbone.freeze_vit=True (and unfreeze_pos_embed=False), or '
                         'leave feature_cache out')


def weights_of(backbone: nn.Module) -> str:
    """The SHA-256 of the file of a backbone's frozen weights, or of the weights themselves."""
    source = weights_source_of(backbone)
    frozen = {name: p for name, p in backbone.named_parameters() if not name.startswith('up')}
    if source is not None and frozen.keys() <= set(source.names):
        return f'file, SHA-256 {sha256_of(source.path)}'
    digest = hashlib.sha256()
    for name, parameter in sorted(frozen.items()):
        tensor = parameter.detach().cpu().contiguous()
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        digest.update(tensor.view(-1).view(dtype=torch.uint8).numpy())
    return f'tensors, SHA-256 {digest.hexdigest()}'


def images_of(dataset: Dataset) -> str:
    """The number of images, and a hash of their names and of the sizes of their files."""
    names, digest = image_names(dataset), hashlib.sha256()
    digest.update('\n'.join(names).encode())
    for path in _files(dataset):
        digest.update(f'\n{os.path.getsize(path)}'.encode())
    return f'{len(names)} images, SHA-256 {digest.hexdigest()}'


def differences(of: dict, other: dict) -> list[str]:
    """The names of what differs between two descriptions."""
    found = []
    for name in sorted({*of, *other}):
        ours, theirs = of.get(name), other.get(name)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            found += [f'{name}.{key}' for key in sorted({*ours, *theirs})
                      if ours.get(key) != theirs.get(key)]
        elif ours != theirs:
            found.append(name)
    return found


def _settings(cfg: Config, backbone: nn.Module) -> dict:
    """The backbone's settings with the defaults of those that the config leaves out."""
    parameters = inspect.signature(type(backbone).__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return _without({**defaults, **cfg.model.backbone}, AFTER | HARMLESS)


def _without(value: object, names: set[str]) -> object:
    """Plain data without some keys, at any depth."""
    if isinstance(value, dict):
        return {key: _without(item, names) for key, item in value.items() if key not in names}
    if isinstance(value, (list, tuple)):
        return [_without(item, names) for item in value]
    return value


def _files(dataset: Dataset) -> Iterator[str]:
    """The images and labels of a data set, also of one that repeats or joins others."""
    parts = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for part in parts if parts != [None] else ():
        yield from _files(part)
    for info in getattr(dataset, 'img_infos', ()):
        yield os.path.join(dataset.img_dir or '', info['filename'])
        if dataset.ann_dir and 'ann' in info:
            yield os.path.join(dataset.ann_dir, info['ann']['seg_map'])
