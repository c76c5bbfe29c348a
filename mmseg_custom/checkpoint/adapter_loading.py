"""Values of a model's adapters, where no checkpoint that holds them is loaded.

    folder of peft     model.backbone.adapt.pretrained=FOLDER: exact, whatever its rank and factor
    otherwise          B = 0, so that nothing changes at first

Norms of DoRA follow from the weights that the model has then. State dicts of others than this
package's loader, mmcv's among them, are compared with the model, too.

I inputs, O outputs, r rank.
"""
import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, some_of
from ..layers.lora import NAME, lora_layers, reset_norms, row_norms
from . import provenance
from .adapter_record import KEY, compare_adapters, recorded_adapters
from .adapters import Adapter
from .keys import BACKBONE, natural_key
from .lazy import LazyStateDict
from .peft_folder import AdapterFolder, read_adapter_folder


def start_adapters(backbone: nn.Module, folder: str | None = None,
                   logger: logging.Logger | None = None) -> None:
    """Gives adapters the values that they start with, once the backbone has its weights.

    Where weights are on the meta device yet, norms of DoRA wait for another call, and so does the
    comparison of the backbone with the folder's.

    Args:
        backbone: Backbone with adapters that were not trained.
        folder: Folder of peft's that has their values; adapters that are not in it start at zero.
        logger: Logger; default: 'mmseg'.

    Raises:
        InputError: If the folder cannot be read, does not fit, or is of another backbone.
    """
    layers = dict(lora_layers(backbone))
    if folder is not None:
        given = read_adapter_folder(folder)
        _check_fit(given, layers, backbone)
        if not any(layer.base_layer.weight.is_meta for layer in layers.values()):
            check_base(given, provenance.weights_source_of(backbone), logger)
            _compare_rounding(given, backbone.frozen_dtype, logger)
        for name, adapter in given.adapters.items():
            _fill(layers[name], adapter)
    for name, layer in layers.items():
        if not layer.base_layer.weight.is_meta:
            reset_norms(layer)
            if folder is not None and name in given.adapters:
                _fill_norms(layer, given.adapters[name])


def check_base(given: AdapterFolder, source: provenance.WeightsSource | None,
               logger: logging.Logger | None = None) -> None:
    """Compares the backbone that adapters were trained on with the one that they are for.

    It is a warning where one of the two is not known.

    Args:
        given: Adapters.
        source: File of the backbone; None if it came from no file.
        logger: Logger; default: 'mmseg'.

    Raises:
        InputError: If it is another one, by SHA-256.
    """
    if given.base is not None and source is not None:
        provenance.verify(given.base, source.path, given.path)
        return
    unknown = ('does not say which weights they were trained on, as folders that peft wrote'
               if given.base is None else
               f'was trained on {given.base["path"]}, and the weights here came from no file')
    (logger or logging.getLogger('mmseg')).warning(
        'adapters of %s: the folder %s; they are right on the same weights alone', given.path,
        unknown)


def _compare_rounding(given: AdapterFolder, frozen_dtype: str | None,
                      logger: logging.Logger | None) -> None:
    """Warns of adapters that were trained over weights of another rounding."""
    if given.base is not None and given.frozen_dtype != frozen_dtype:
        (logger or logging.getLogger('mmseg')).warning(
            'adapters of %s were trained with model.backbone.frozen_dtype=%r, here it is %r',
            given.path, given.frozen_dtype, frozen_dtype)


def _log_start(path: str, logger: logging.Logger | None = None) -> None:
    (logger or logging.getLogger('mmseg')).info(
        '%s holds no adapters: those of the model keep the values that they start with (B = 0, or '
        'those of %s.pretrained)', path, KEY)


def _check_fit(given: AdapterFolder, layers: Mapping[str, Any], backbone: nn.Module) -> None:
    """Refuses adapters of other layers, sizes and kinds than the model's; names the rank."""
    others = sorted(given.adapters.keys() - layers.keys(), key=natural_key)
    if others:
        raise InputError(f'{given.path} holds adapters of {some_of(others)}, where the model has '
                         f'none: add them to {KEY}.targets and {KEY}.blocks')
    for name, adapter in given.adapters.items():
        base = layers[name].base_layer
        there = (adapter.b.shape[0], adapter.a.shape[1])
        if there != (base.out_features, base.in_features):
            raise InputError(f'{given.path}: the adapter of {name} is for a layer of {there[1]} '
                             f'inputs and {there[0]} outputs, the model has {base.in_features} '
                             f'and {base.out_features}: give adapters of this network')
    rank = max(adapter.rank for adapter in given.adapters.values())
    here = next(iter(layers.values())).r[NAME]
    if rank > here:
        raise InputError(f'{given.path} holds adapters of rank {rank} (those of q, k and v '
                         f'together), {KEY}.r is {here}: set {KEY}.r={rank} or more')
    if given.use_dora and not backbone.adapt_record['use_dora']:
        raise InputError(f'{given.path} holds adapters with norms, of DoRA: set '
                         f'{KEY}.use_dora=True')


@torch.no_grad()
def _fill(layer: Any, adapter: Adapter) -> None:
    """Sets A and B of a layer of peft's; they become float32, so that nothing is rounded.

    Where the layer's rank is higher, the further rows of A keep their values, and B is 0 there.
    """
    a, b = layer.lora_A[NAME], layer.lora_B[NAME]
    rest = a.weight[adapter.rank:].float()
    _set(a, torch.cat([adapter.a.read().float(), rest]))
    scaled = adapter.b.read().float() * (adapter.factor / layer.scaling[NAME])
    _set(b, torch.cat([scaled, scaled.new_zeros(len(scaled), len(rest))], dim=1))


@torch.no_grad()
def _fill_norms(layer: Any, adapter: Adapter) -> None:
    """Sets the norms of a layer with DoRA where an adapter has some; the others are left."""
    if adapter.norms is not None:
        norms, given = layer.lora_magnitude_vector[NAME], adapter.norms.read().float()
        _set(norms, torch.where(given.isnan(), norms.weight, given.to(norms.weight.device)))


def _set(module: nn.Module, value: Tensor) -> None:
    module.weight = nn.Parameter(value.to(module.weight.device),
                                 requires_grad=module.weight.requires_grad)


def compare_with(model: nn.Module, weights: LazyStateDict, meta: Mapping[str, Any],
                 logger: logging.Logger | None = None) -> bool:
    """Compares the adapters of a checkpoint with those of a segmentor.

    Args:
        model: Segmentor.
        weights: Weights of the checkpoint that are to be loaded.
        meta: Metadata of the checkpoint.
        logger: Logger; default: 'mmseg'.

    Returns:
        Whether the segmentor has adapters that the checkpoint has no values for; False if its
        backbone is not of this package.

    Raises:
        InputError: If the checkpoint has others, or the segmentor has none.
    """
    backbone: Any = getattr(model, 'backbone', None)
    if not hasattr(backbone, 'adapt_record'):
        return False
    saved = recorded_adapters(meta, weights, weights.path)
    missing = compare_adapters(saved, backbone.adapt_record, weights.path)
    if missing:
        _log_start(weights.path, logger)
    return missing


def note_adapters(content: dict[str, Any], path: str) -> None:
    """Adds to a segmentor's state dict what adapters it holds, for :func:`watch_state_dicts`.

    Args:
        content: Content of a checkpoint, for code that loads it by itself, as mmcv does.
        path: Name of its file.
    """
    meta, state_dict = content.get('meta'), content.get('state_dict')
    if not isinstance(meta, dict) or not isinstance(state_dict, dict) or not any(
            name.removeprefix('module.').startswith(BACKBONE) for name in state_dict):
        return
    try:
        saved = recorded_adapters(meta, state_dict, path)
    except InputError:
        return  # adapters of a network that is not of this package
    metadata = OrderedDict(getattr(state_dict, '_metadata', {}))
    metadata['backbone'] = {**metadata.get('backbone', {}), 'adapt_path': path, 'adapt': saved}
    content['state_dict'] = OrderedDict(state_dict)
    content['state_dict']._metadata = metadata


def watch_state_dicts(backbone: nn.Module) -> None:
    """Compares adapters in every state dict that is loaded into a backbone with its own.

    mmcv loads with ``strict=False``: adapters without a place would be left out with a line in the
    log, and the backbone compute without them.
    """
    backbone.register_load_state_dict_pre_hook(_compare_state_dict)


def _compare_state_dict(backbone: Any, state_dict: dict, prefix: str, local_metadata: dict,
                        *_: object) -> None:
    if 'adapt_path' not in local_metadata:
        return  # no checkpoint was read: what has no place is reported by torch
    path = local_metadata['adapt_path']
    if not compare_adapters(local_metadata['adapt'], backbone.adapt_record, path):
        return
    _log_start(path)
    for name, layer in lora_layers(backbone):
        weight = state_dict.get(f'{prefix}{name}.weight')
        if weight is not None and NAME in layer.lora_magnitude_vector:
            place = f'{prefix}{name}.lora_magnitude_vector.{NAME}.weight'
            state_dict[place] = row_norms(layer, weight)
