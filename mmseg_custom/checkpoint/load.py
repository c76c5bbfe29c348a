"""From a file of any form to a backbone: recognised, renamed, checked, resampled, placed.

    file -> files.read_weights -> keys.find_network -> keys.to_native -> checks -> parameters

A parameter on the meta device takes the file's tensor itself, which is a view of the mapped file:
no second copy is made where the dtype already fits. Elsewhere tensors are converted and copied one
by one, and the pages of the file are let go behind them.
"""
import logging
import os
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..layers.pos_embed import resample_pos_embed
from .files import read_weights
from .keys import PYRAMID, Architecture, describe_mismatch, find_network, summarize, to_native
from .lazy import LazyStateDict
from .provenance import WeightsSource, remember

FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def load_backbone(backbone: nn.Module, path: str, *, dtype: torch.dtype | None = None,
                  check_finite: bool = False, logger: logging.Logger | None = None) -> None:
    """Loads pretrained weights of any form into a backbone.

    A position embedding of another grid is resampled to the backbone's. Names and shapes must match
    exactly; only a pyramid (``up1`` to ``up4``) may be missing as a whole, and then keeps its own
    initialisation. The backbone remembers the file as ``weights_source``, so that checkpoints of a
    frozen backbone can refer to it.

    Args:
        backbone: The backbone, wholly or partly on the meta device, or not at all.
        path: A .pth (flat, under 'module', or a segmentor's checkpoint), a safetensors file, or a
            Hugging Face folder.
        dtype: Of the parameters afterwards; None keeps the dtype that each has.
        check_finite: Also read every value, and refuse NaN and infinity.
        logger: Default: the logger 'mmseg'.

    Raises:
        InputError: If the file is missing, unreadable, or does not fit; it says what to do.
    """
    logger = logger or logging.getLogger('mmseg')
    _check_exists(path)
    network = open_backbone_weights(path, logger)
    has_pyramid = any(name.startswith(PYRAMID) for name in network.parts)
    fill(backbone, network, dtype, check_finite,
         may_miss=lambda name: name.startswith(PYRAMID) and not has_pyramid)
    remember(backbone, WeightsSource(os.path.abspath(path), tuple(network.parts)))
    logger.info('loaded %d tensors of %s from %s', len(network.parts), type(backbone).__name__,
                path)




def open_backbone_weights(path: str, logger: logging.Logger | None = None) -> LazyStateDict:
    """Opens a file and translates the names of the InternViT in it.

    What surrounds the network (heads, a language model) and the parameters that no map needs are
    left aside with one log line each.

    Raises:
        InputError: If the file cannot be read, or does not hold one InternViT.
    """
    logger = logger or logging.getLogger('mmseg')
    weights = read_weights(path)
    dialect, prefix = find_network(weights.tensors, path)
    inside = [name[len(prefix):] for name in weights.tensors if name.startswith(prefix)]
    around = [name for name in weights.tensors if not name.startswith(prefix)]
    around += weights.not_opened
    unused = sorted(dialect.unused.intersection(inside))
    for what, names in (('beside the network', around), ('that no map needs', unused)):
        if names:
            logger.info('%s: left aside %d tensors %s: %s', path, len(names), what,
                        summarize(names))
    sources, unknown = to_native(dialect, set(inside).difference(unused))
    for name in [name for name in unknown if name.startswith(PYRAMID)]:
        sources[name] = (name,)
        unknown.remove(name)
    parts = {name: tuple(weights.tensors[prefix + source] for source in names)
             for name, names in sources.items()}
    return LazyStateDict(path, parts, set(parts) if weights.mapped else set(), unknown)


def fill(module: nn.Module, network: LazyStateDict, dtype: torch.dtype | None = None,
         check_finite: bool = False, may_miss: Callable[[str], bool] = lambda name: False,
         as_stored: Callable[[str], bool] = lambda name: False) -> None:
    """Checks a network against a model, then places every tensor.

    Nothing is changed if a check fails (``check_finite`` apart, which reads as it places).

    Args:
        module: The backbone or segmentor.
        network: What to load.
        dtype: See :func:`load_backbone`.
        check_finite: See :func:`load_backbone`.
        may_miss: Says of a parameter's name whether it may be missing in the file.
        as_stored: Says of a parameter's name whether it takes the dtype that it has in the file.

    Raises:
        InputError: If names, shapes or dtypes do not fit.
    """
    targets = module.state_dict(keep_vars=True)
    check_fit(network, targets, may_miss)
    for name in network.parts:
        tensor, target = network.tensor(name), targets[name]
        if tensor.shape != target.shape:  # check_tensors let only position embeddings pass
            tensor = resample(tensor, target.shape[1])
        wanted = tensor.dtype if as_stored(name) else dtype or target.dtype
        placed = place(module, name, tensor, wanted)
        if check_finite and not placed.isfinite().all():
            raise InputError(f'{network.path}: {name} holds NaN or infinity in '
                             f'{str(placed.dtype).removeprefix("torch.")}: the file is damaged, '
                             'or its training diverged')
        if not network.holds(name, placed):
            network.release(name)


def check_fit(network: LazyStateDict, targets: Mapping[str, Tensor],
                  may_miss: Callable[[str], bool]) -> None:
    """Refuses a network that does not fit a model: see the three checks below.

    Raises:
        InputError: Naming what does not fit.
    """
    check_architecture(network, targets)
    check_names(network, targets, may_miss)
    check_tensors(network, targets)


def check_architecture(network: LazyStateDict, targets: Mapping[str, Tensor]) -> None:
    """Refuses a network of other proportions.

    Raises:
        InputError: Naming the options of the backbone that differ.
    """
    prefix = '' if 'patch_embed.proj.weight' in targets else 'backbone.'
    here, there = ({name.removeprefix(prefix): shape for name, shape in shapes.items()
                    if name.startswith(prefix)}
                   for shapes in ({n: tuple(t.shape) for n, t in targets.items()},
                                  network.shapes()))
    if not all('patch_embed.proj.weight' in shapes for shapes in (here, there)):
        return  # other networks have no such proportions
    differing = Architecture.of(here).differences(Architecture.of(there))
    if differing:
        model = ', '.join(f'{name}={mine!r}' for name, (mine, _) in differing.items())
        file = ', '.join(f'{name}={theirs!r}' for name, (_, theirs) in differing.items())
        raise InputError(f'{network.path} holds an InternViT with {file}, the model has {model}: '
                         f'set {file} in model.backbone, or use the file of this model')


def check_names(network: LazyStateDict, targets: Mapping[str, Tensor],
                may_miss: Callable[[str], bool]) -> None:
    """Refuses names that are missing or left over.

    Raises:
        InputError: Listing them with the nearest names.
    """
    missing = [name for name in targets if name not in network.parts and not may_miss(name)]
    unexpected = [name for name in network.parts if name not in targets] + network.unknown
    if missing or unexpected:
        raise InputError(f'{network.path} does not fit the model: '
                         f'{describe_mismatch(missing, unexpected)}')


def check_tensors(network: LazyStateDict, targets: Mapping[str, Tensor]) -> None:
    """Refuses quantised tensors, and other shapes (a position embedding may have another grid).

    Raises:
        InputError: Naming the first tensor that does not fit.
    """
    for name, shape in network.shapes().items():
        wanted = tuple(targets[name].shape)
        other_grid = name.endswith('pos_embed') and _is_grid(shape) and _is_grid(wanted) and (
            shape[-1] == wanted[-1])
        if shape != wanted and not other_grid:
            raise InputError(f'{network.path}: {name} has shape {shape}, the model expects '
                             f'{wanted}')
        if targets[name].is_floating_point():
            check_float(network, name)


def check_float(network: LazyStateDict, name: str) -> None:
    """Refuses a quantised tensor.

    Raises:
        InputError: Naming it and its dtype.
    """
    for part in network.parts[name]:
        if part.dtype not in FLOATS:
            raise InputError(f'{network.path}: {name} is {str(part.dtype).removeprefix("torch.")}: '
                             'quantised weights do not load, use a bfloat16, float16 or float32 '
                             'release')


def resample(pos_embed: Tensor, num_tokens: int) -> Tensor:
    """Resamples a position embedding (1, 1 + N, D) to (1, num_tokens, D), in float32."""
    side = round((num_tokens - 1) ** 0.5)
    return resample_pos_embed(pos_embed.float(), (side, side))


def place(module: nn.Module, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Makes a tensor the value of a parameter or buffer, and returns what the module now holds.

    On the meta device, and where the dtype changes, the parameter becomes a new one on the tensor
    (the tensor itself if its dtype fits); elsewhere its values are overwritten.
    """
    owner_name, _, leaf = name.rpartition('.')
    owner = module.get_submodule(owner_name)
    old = getattr(owner, leaf)
    if not old.is_floating_point():
        dtype = old.dtype
    if not old.is_meta and old.dtype == dtype:
        with torch.no_grad():
            return old.copy_(tensor)
    new = tensor.to('cpu' if old.is_meta else old.device, dtype)
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    setattr(owner, leaf, new)
    return new


def _is_grid(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] == 1 and round((shape[1] - 1) ** 0.5) ** 2 == shape[1] - 1


def _check_exists(path: str) -> None:
    if re.match(r'[a-z0-9+-]+://', str(path)):
        raise InputError(f'model.backbone.pretrained={str(path)!r} is an address: download the '
                         'file first and give its path')
    if not os.path.exists(path):
        raise InputError(
            f'pretrained file {path} does not exist: download it (for InternViT-6B-224px, '
            'intern_vit_6b_224px.pth of OpenGVLab/InternVL on the Hugging Face hub), give its path '
            'as model.backbone.pretrained, or set model.backbone.pretrained=None to start from '
            'random weights')
