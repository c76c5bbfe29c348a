"""``config.json`` and weights -> network, without mmcv and mmseg.

- ``config.json`` names classes of this package, which are built on the meta device;
- the precision policy sets the dtypes of their weights;
- the file of weights brings these, as views of it where they are for the CPU.
"""
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from ..checkpoint.files import safe_load
from ..checkpoint.integrity import finish_checks
from ..checkpoint.lazy import LazyStateDict, LazyTensor
from ..checkpoint.load import fill
from ..distributed.precision import apply_precision
from ..errors import InputError, hint, words_of
from ..layers.lora import LoraOptions
from ..layers.plain_lora import add_plain_lora
from ..models.backbones.frozen_vit import FrozenViT
from ..models.backbones.intern_vit import InternViT6B
from ..models.backbones.intern_vit_adapter import InternViTAdapter
from ..models.decode_heads.backbone_blocks import BackboneBlocks
from ..models.decode_heads.fcn_head import FCNHead
from ..models.decode_heads.plain_mask_head import PlainMaskHead
from ..models.decode_heads.uper_head import UPerHead
from .config import BACKBONE_FOLDER, CONFIG, WEIGHTS

# Methods by which torch.nn.init draws values.
_IN_PLACE = ('uniform_', 'normal_', 'erfinv_', 'mul_', 'add_', 'clamp_', 'zero_', 'fill_')
MOST_PARAMETERS = 10_000  # InternViT-6B with a pyramid has 636, weights and biases one by one
Classes = Mapping[str, Callable[..., nn.Module]]
BACKBONES: Classes = {kind.__name__: kind for kind in (InternViT6B, InternViTAdapter, FrozenViT)}
HEADS: Classes = {kind.__name__: kind for kind in (FCNHead, UPerHead, PlainMaskHead)}


def build_parts(config: Mapping[str, Any], folder: str) -> tuple[nn.Module, nn.Module]:
    """Builds backbone and decode head of an exported segmentor, on the meta device.

    Args:
        config: Content of ``config.json``, checked.
        folder: Its folder.

    Raises:
        InputError: If a class is unknown, or cannot be built with its arguments.
    """
    path = os.path.join(folder, CONFIG)
    with torch.device('meta'), _NothingInitialised(), _few_parameters():
        backbone = _build('backbone', BACKBONES, _located(config['backbone'], folder), path)
        if config['adapters'] is not None:
            _add_adapters(backbone, config['adapters'], path)
        head = _build('decode_head', HEADS, config['decode_head'], path)
    blocks = getattr(head, 'blocks', None)
    if isinstance(blocks, BackboneBlocks):
        try:
            blocks.join(backbone)
        except InputError as error:
            raise InputError(f'{path}: {error}') from error
    return backbone, head


def set_precision(network: nn.Module, config: Mapping[str, Any], device: str) -> None:
    """Sets the dtypes that a network is stored in, and computes in on a device, as in tests.

    Args:
        network: Network with ``backbone`` and ``decode_head``.
        config: Content of ``config.json``.
        device: 'cuda' or 'cpu'.
    """
    precision = config['precision']
    network.requires_grad_(False)  # Nothing is trained, so no weight of the backbone is float32.
    apply_precision(network, getattr(torch, precision['backbone']), device,
                    head_dtype=getattr(torch, precision['heads']))


def fill_from(network: nn.Module, folder: str) -> None:
    """Loads the weights of a folder; those on the meta device become views of the mapped file.

    Args:
        network: Network, whose dtypes are set.
        folder: Folder of an exported segmentor.

    Raises:
        InputError: If the file is missing, damaged or of another network.
    """
    path = os.path.join(folder, WEIGHTS)
    if not os.path.isfile(path):  # a pipe would be waited for
        raise InputError(f'{path} is missing or no file: export or fetch the folder again')
    content, mapped = safe_load(path)
    fill(network, LazyStateDict(path, {name: LazyTensor.of(tensor, mapped) for name, tensor
                                       in content['state_dict'].items()}))
    finish_checks()


@contextmanager
def _few_parameters() -> Iterator[None]:
    """Refuses networks that memory could not hold the modules of, as of a billion blocks."""
    left = iter(range(MOST_PARAMETERS))

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if next(left, None) is None:
            raise InputError(f'more than {MOST_PARAMETERS} parameters')
    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


class _NothingInitialised(TorchFunctionMode):
    """Skips what initialises tensors on the meta device.

    Nothing is lost, as they have no values; PyTorch would import its compiler to compute none.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Returns the tensor that a method would change in place; calls all else."""
        kwargs = kwargs or {}
        changed = args[0] if args else kwargs.get('tensor')  # torch.nn.init gives it by its name
        if getattr(func, '__name__', '') in _IN_PLACE and changed.is_meta:
            return changed
        return func(*args, **kwargs)


def _located(options: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Returns the options of a backbone, with the path of its own folder and without weights."""
    options = {**options, 'pretrained': None}  # No file but those of the folder is read.
    if options['type'] != FrozenViT.__name__:
        return options
    name = options.get('name')
    if name == BACKBONE_FOLDER:
        options['name'] = os.path.join(folder, BACKBONE_FOLDER)
    elif not isinstance(name, str) or os.path.basename(name) != name or os.path.isdir(name):
        raise InputError(f'{os.path.join(folder, CONFIG)}: backbone.name={name!r}: expected the '
                         f'name of a network of timm, or {BACKBONE_FOLDER!r} for the folder beside '
                         'it')
    return options


def _build(place: str, known: Classes, options: Mapping[str, Any], path: str) -> nn.Module:
    """Builds a part of the network from its options in ``config.json``."""
    options = dict(options)
    kind = options.pop('type')
    if kind not in known:
        raise InputError(f'{path}: {place}.type={kind!r}{hint(kind, known)}: expected one of '
                         f'{", ".join(known)}')
    try:
        return known[kind](**options)
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError, ArithmeticError,
            AssertionError, ImportError) as error:
        what = str(error) if isinstance(error, InputError) else words_of(error)
        raise InputError(f'{path}: {place} cannot be built ({what}): export it again') from error


def _add_adapters(backbone: nn.Module, adapters: Mapping[str, Any], path: str) -> None:
    """Puts adapters around the layers of some blocks."""
    options = LoraOptions(adapters['r'], adapters['alpha'], 0.0, tuple(adapters['targets']),
                          bool(adapters.get('use_dora')))
    blocks = getattr(backbone, 'blocks', ())
    if max(adapters['blocks']) >= len(blocks):
        raise InputError(f'{path}: adapters.blocks: expected numbers below {len(blocks)}, the '
                         'number of blocks')
    for i in adapters['blocks']:
        add_plain_lora(blocks[i], options)
