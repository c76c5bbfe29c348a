"""Name or folder -> network of timm or transformers; file of its weights -> checked tensors."""
import json
import logging
import os.path as osp
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch

from ...checkpoint.backbone_file import check_exists
from ...checkpoint.files import read_weights
from ...checkpoint.folders import FOLDER_FILES
from ...checkpoint.keys import summarize
from ...checkpoint.lazy import LazyStateDict, LazyTensor
from ...checkpoint.provenance import WeightsSource
from ...errors import InputError, some_of
from ...schema import load_json
from ..tuning import KEY
from .timm_vit import TimmViT, check_name, is_timm_config
from .transformers_vit import TransformersViT
from .upstream_vit import NetworkFacts, UpstreamViT

CONFIG = 'config.json'
ADVICE = 'download it, as docs/frozen_vit.md shows'


def build_network(name: str, overrides: Mapping[str, Any], dtype: torch.dtype,
                  on_meta: bool) -> UpstreamViT:
    """Builds a network without the weights of a file.

    Args:
        name: Name of a network of timm, or folder with config.json of transformers or timm.
        overrides: See :class:`.frozen_vit.FrozenViT`.
        dtype: Dtype of the parameters.
        on_meta: Whether parameters are without values.

    Raises:
        InputError: If there is no such network, or it has no patch grid.
    """
    if not osp.isdir(name):
        return TimmViT(check_name(name), overrides, dtype, on_meta)
    path = osp.join(name, CONFIG)
    if not osp.isfile(path):
        raise InputError(f'{KEY}.name={name!r} is a folder without {CONFIG}: expected one as the '
                         'Hugging Face hub has it (hf download NAME --local-dir FOLDER)')
    content = load_json(path, 'a config of transformers or timm')
    if isinstance(content, dict) and is_timm_config(content):
        return TimmViT(_name_in(content), overrides, dtype, on_meta, content)
    _require_transformers()
    return TransformersViT(name, overrides, dtype, on_meta)


def _name_in(content: Mapping[str, Any]) -> str:
    """Returns the name of timm that config.json of a folder gives, with its tag if it is known."""
    name, told = content['architecture'], content.get('pretrained_cfg')
    tag = told.get('tag') if isinstance(told, Mapping) else None
    try:
        return check_name(f'{name}.{tag}' if tag else name)
    except InputError:
        return check_name(name)


def _require_transformers() -> None:
    # Before 5.0, the library has no rules for names of earlier versions.
    if find_spec('transformers') is None or find_spec('transformers.conversion_mapping') is None:
        raise InputError(f'{KEY}.name: a folder of transformers needs transformers 5 or newer: pip '
                         'install "transformers>=5"')


def facts_of(name: str, overrides: Mapping[str, Any] | None = None) -> NetworkFacts:
    """Returns what is known of a network, which is built without weights once in a process.

    Raises:
        InputError: See :func:`build_network`.
    """
    return _facts_of(name, json.dumps(dict(overrides or {}), sort_keys=True, default=str))


@lru_cache(maxsize=64)
def _facts_of(name: str, overrides: str) -> NetworkFacts:
    return build_network(name, json.loads(overrides), torch.bfloat16, on_meta=True).facts


def weights_in(name: str) -> str | None:
    """Returns a folder if it holds weights; None for a name of timm, or a folder without any."""
    return name if any(osp.isfile(osp.join(name, file)) for file in FOLDER_FILES) else None


def open_network_weights(network: UpstreamViT, path: str, prefix: str
                         ) -> tuple[LazyStateDict, WeightsSource]:
    """Opens a file of a network's weights.

    Args:
        network: Network, with or without values.
        path: File, or folder of a hub.
        prefix: Prefix of the tensors' names in the result.

    Returns:
        The tensors, with the network's own names behind the prefix; and where they come from.

    Raises:
        InputError: If the file cannot be read, or is of another architecture.
    """
    check_exists(path, ADVICE)
    weights = read_weights(path)
    places, left = network.find(list(weights))
    if left:
        logging.getLogger('mmseg').info('%s: left aside %d tensors that no feature map needs: %s',
                                        path, len(left), summarize(left))
    found = {f'{prefix}{name}': place for name, place in places.items()}
    tensors: dict[str, LazyTensor] = {}
    for name, (source, part, count) in found.items():
        tensor = weights[source]
        if count > 1 and (not tensor.shape or tensor.shape[0] % count):
            raise InputError(f'{path}: {source} has shape {tensor.shape}: expected {count} equal '
                             'parts')
        tensors[name] = tensor if count == 1 else tensor.chunk(count)[part]
    opened = LazyStateDict(path, tensors)
    _check_shapes(network, opened, prefix)
    return opened, WeightsSource(osp.abspath(path), tuple(found), places=found)


def _check_shapes(network: UpstreamViT, weights: LazyStateDict, prefix: str) -> None:
    """Refuses weights of the same names and other sizes."""
    shapes = {name: tuple(tensor.shape) for name, tensor in network.vit.state_dict().items()}
    others = [name for name in shapes if f'{prefix}{name}' in weights
              and weights[f'{prefix}{name}'].shape != shapes[name]]
    if others:
        name, more = others[0], f' (and so have {some_of(others[1:])})' if others[1:] else ''
        raise InputError(
            f'{weights.path} holds weights of another architecture than '
            f'{network.facts.architecture}: {name} has shape {weights[f"{prefix}{name}"].shape}, '
            f'expected {shapes[name]}{more}; give {KEY}.name of these weights, or the file of this '
            'network')
