"""The key of a cache: everything that its content depends on, and nothing else.

Two runs with the same key share a cache; runs with different keys do not. The key leaves out what
does not change the frozen feature maps: the head and the pyramid, the run's own seed and schedule,
the number of ranks and workers, the location of the data, and the kernels (whose last bits may
differ).
"""
import hashlib
import inspect
import json
import os
from typing import Any

import torch
from mmcv import Config
from torch import nn
from torch.utils.data import Dataset

from ...checkpoint.provenance import sha256_of, weights_source_of
from ...datasets.nesting import file_paths, image_names, renumbered_labels
from ...errors import InputError
from ...models.backbone_options import traits_of
from ...models.tuning import FROZEN, LAST_BLOCKS, LORA, Tuning
from ..build import compute_dtype
from ..identity import HARMLESS
from ..run import Run

# Settings of the backbone that act after the frozen feature maps, or that have no effect on them.
# What is trained of the blocks decides up to which of them a cache reaches: see _frozen_part.
AFTER = {'with_fpn', 'with_final_norm', 'freeze_vit', 'drop_path_rate', 'pretrain_size',
         'unfreeze_pos_embed', 'adapt', 'train_last', 'train_norms'}
# Settings that the key leaves out, because it holds the names of the images that they lead to.
LOCATIONS = {'data_root', 'img_dir', 'ann_dir', 'split', 'max_image_num', 'few_shot'}

WITH_ADAPTER = ('feature_cache: the tokens of InternViTAdapter change in training, from the first '
                'block on, so that no feature maps can be kept; leave feature_cache out')


def describe(run: Run, model: nn.Module, seed: int) -> dict:
    """Returns the key of a run's cache, as plain values.

    Args:
        run: The run.
        model: Segmentor with its weights, in its dtypes, unwrapped.
        seed: Seed of the views.

    Raises:
        InputError: If the feature maps of this backbone change in training.
    """
    check_frozen(model)
    cfg, dataset, dtype = run.cfg, run.data['train'], compute_dtype(run.cfg, model)
    of = dict(
        format=1, weights=weights_of(model.backbone), backbone=_settings(cfg, model.backbone),
        computed_in=str(dtype).removeprefix('torch.'), data=_without(cfg.data.train, LOCATIONS),
        images=images_of(dataset), seed=seed)
    of['backbone'].update({**_frozen_part(model.backbone),
                           **getattr(model.backbone, 'cache_record', {})})
    renumbered = renumbered_labels(dataset)
    if renumbered is not None:
        of['labels'] = renumbered
    return json.loads(json.dumps(of, sort_keys=True, default=str))


def check_frozen(model: nn.Module) -> None:
    """Refuses a backbone whose feature maps change in training.

    Raises:
        InputError: If it is such a backbone; the message names the setting.
    """
    backbone, traits = model.backbone, traits_of(model.backbone)
    if traits.changes_tokens:
        raise InputError(WITH_ADAPTER)
    if not traits.has_frozen_features:
        raise InputError(f'feature_cache: the backbone {type(backbone).__name__} has no frozen '
                         'feature maps: expected InternViT6B or FrozenViT; leave feature_cache out')
    check_tuning(backbone.tuning)
    if getattr(getattr(backbone, 'pos_embed', None), 'requires_grad', False):
        raise InputError('feature_cache: model.backbone.unfreeze_pos_embed=True trains the '
                         'position embedding, and all feature maps change with every step: set it '
                         'to False, or leave feature_cache out')


def check_tuning(tuning: Tuning) -> None:
    """Refuses a backbone that has no frozen block before its first trained one.

    Raises:
        InputError: If it is one; the message names the setting.
    """
    if tuning.kind == FROZEN or tuning.first_trained > 0:
        return
    if tuning.kind == LORA:
        raise InputError('feature_cache: model.backbone.adapt puts adapters into block 0, and no '
                         'block before the first adapted one is left to be cached: name later '
                         'ones, model.backbone.adapt.blocks=[...], or leave feature_cache out')
    if tuning.kind == LAST_BLOCKS:
        setting = ('train_norms=True trains norms from block 0 on' if tuning.norms else
                   f'train_last={len(tuning.blocks)} trains all blocks that are read')
        raise InputError(f'feature_cache: model.backbone.{setting}, and no frozen block is left to '
                         'be cached: change it, or leave feature_cache out')
    raise InputError('feature_cache: the backbone is trained, its feature maps change with every '
                     'step: set model.backbone.freeze_vit=True, or train a part of it '
                     '(model.backbone.train_last), or leave feature_cache out')


def weights_of(backbone: nn.Module) -> str:
    """Returns the SHA-256 of the file with the frozen weights of a backbone, or of the weights."""
    source = weights_source_of(backbone)
    frozen = {name: p for name, p in backbone.named_trunk_parameters()
              if backbone.tuning.kind == FROZEN or _is_before(name, backbone.first_trained)}
    if source is not None and frozen.keys() <= set(source.names):
        return f'file, SHA-256 {sha256_of(source.path)}'
    digest = hashlib.sha256()
    for name, parameter in sorted(frozen.items()):
        tensor = parameter.detach().cpu().contiguous()
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        digest.update(tensor.view(-1).view(dtype=torch.uint8).numpy())
    return f'tensors, SHA-256 {digest.hexdigest()}'


def images_of(dataset: Dataset) -> str:
    """Returns the number of images, and a hash of their names and file sizes."""
    names, digest = image_names(dataset), hashlib.sha256()
    digest.update('\n'.join(names).encode())
    for path in file_paths(dataset):
        digest.update(f'\n{os.path.getsize(path)}'.encode())
    return f'{len(names)} images, SHA-256 {digest.hexdigest()}'


def differences(of: dict, other: dict) -> list[str]:
    """Returns the names of the entries in which two keys differ."""
    found = []
    for name in sorted({*of, *other}):
        ours, theirs = of.get(name), other.get(name)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            found += [f'{name}.{key}' for key in sorted({*ours, *theirs})
                      if ours.get(key) != theirs.get(key)]
        elif ours != theirs:
            found.append(name)
    return found


def _frozen_part(backbone: nn.Module) -> dict[str, Any]:
    """Returns which tokens of a partly trained backbone are cached; nothing of a frozen one."""
    if backbone.tuning.kind == FROZEN:
        return {}
    first = backbone.first_trained
    return dict(out_indices=[i for i in backbone.out_indices if i < first], tokens_before=first)


def _is_before(name: str, block: int) -> bool:
    """Returns whether a parameter of the trunk acts before a block."""
    part, _, rest = name.partition('.')
    return part != 'blocks' or int(rest.partition('.')[0]) < block


def _settings(cfg: Config, backbone: nn.Module) -> Any:
    """Returns the settings of the backbone, including defaults that the config leaves out."""
    parameters = inspect.signature(type(backbone).__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    settings = {**defaults, **cfg.model.backbone}
    # Caches from before this setting have no such entry.
    plain = {'frozen_dtype'} if settings.get('frozen_dtype') is None else set()
    return _without(settings, AFTER | HARMLESS | plain)


def _without(value: Any, names: set[str]) -> Any:
    """Returns plain data without some keys, at any depth."""
    if isinstance(value, dict):
        return {key: _without(item, names) for key, item in value.items() if key not in names}
    if isinstance(value, (list, tuple)):
        return [_without(item, names) for item in value]
    return value
