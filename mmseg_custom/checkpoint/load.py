"""File of any form -> backbone: opened, checked, resampled, placed.

    file -> backbone_file.open_weights_for -> checks -> parameters

A parameter on the meta device takes the file's tensor itself, which is a view of the mapped file:
no second copy is made where the dtype already fits. Elsewhere tensors are converted and copied one
by one, and the memory of the file's pages is freed behind them.
"""
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..errors import InputError, some_of
from ..layers.pos_embed import resample_pos_embed
from ..layers.quantized_linear import STORED, QuantizedLinear, weight_of
from .backbone_file import check_exists, open_weights_for
from .keys import (
    BACKBONE,
    BESIDE_TRUNK,
    NATIVE,
    Architecture,
    check_dimensions,
    describe_mismatch,
)
from .lazy import FLOATS, INTEGERS, LazyStateDict
from .provenance import set_weights_source
from .releases import describe_releases


class Mismatch(InputError):
    """Weights that do not fit a model.

    Args:
        message: What does not fit.
        parts: Parts of the model that everything that does not fit belongs to; one may be there
            several times. mmcv's registry makes an error anew from its message alone.
    """

    def __init__(self, message: str, parts: Iterable[str] = ()):
        super().__init__(message)
        self.parts = list(dict.fromkeys(parts))


def load_backbone(backbone: nn.Module, path: str, *, dtype: torch.dtype | None = None,
                  check_finite: bool = False, logger: logging.Logger | None = None) -> None:
    """Loads pretrained weights of any form into a backbone.

    A position embedding of another grid is resampled to the backbone's, and a patch embedding where
    the backbone has it among its ``weights_changes`` (:mod:`.changes`). Names and shapes must match
    exactly; only a pyramid (``up1`` to ``up4``) may be missing as a whole, and then keeps its own
    initialisation. Whole blocks behind the backbone's last one are left aside, with a warning. The
    file becomes the backbone's ``weights_source``, to which checkpoints of a frozen backbone refer.

    Args:
        backbone: Backbone, wholly or partly on the meta device, or not at all.
        path: A .pth (flat, under 'module', or a segmentor's checkpoint), a safetensors file, or a
            Hugging Face folder.
        dtype: Dtype of the parameters afterwards; None keeps the dtype of each.
        check_finite: Whether to read every value and refuse NaN and infinity.
        logger: Logger; default: 'mmseg'.

    Raises:
        InputError: If the file is missing, unreadable, or does not fit; it says what to do.
    """
    logger = logger or logging.getLogger('mmseg')
    check_exists(path)
    weights, source, note = open_weights_for(backbone, path, logger)
    if note:
        logger.warning(note)
    fill(backbone, weights, dtype, check_finite, may_miss=may_miss_beside_trunk(weights))
    set_weights_source(backbone, source)
    logger.info('loaded %d tensors of %s from %s', len(weights), type(backbone).__name__, path)


def may_miss_beside_trunk(weights: LazyStateDict) -> Callable[[str], bool]:
    """Returns a rule for :func:`fill`: only a whole pyramid, or adapter, may be missing."""
    has_one = any(name.startswith(BESIDE_TRUNK) for name in weights)
    return lambda name: name.startswith(BESIDE_TRUNK) and not has_one


def fill(module: nn.Module, weights: LazyStateDict, dtype: torch.dtype | None = None,
         check_finite: bool = False, may_miss: Callable[[str], bool] = lambda name: False,
         as_stored: Callable[[str], bool] = lambda name: False) -> None:
    """Checks weights against a model, then places every tensor.

    Nothing is changed if a check fails (``check_finite`` apart, which reads as it places).

    Args:
        module: Backbone or segmentor.
        weights: Weights to load; those that become parameters themselves are noted as ``taken``.
        dtype: See :func:`load_backbone`.
        check_finite: See :func:`load_backbone`.
        may_miss: Function that returns whether the parameter of a name may be missing in the file.
        as_stored: Function that returns whether the parameter of a name takes the dtype that it
            has in the file.

    Raises:
        InputError: If names, shapes or dtypes do not fit.
    """
    targets = module.state_dict(keep_vars=True)
    check_fit(weights, targets, may_miss)
    for name, lazy in weights.items():
        tensor, target = lazy.read(), targets[name]
        if tensor.shape != target.shape:  # _check_tensors let only position embeddings pass
            tensor = resample(tensor, target.shape[1])
        wanted = tensor.dtype if as_stored(name) else dtype or target.dtype
        placed = place(module, name, tensor, wanted)
        if check_finite:
            refuse_nonfinite(placed if placed.is_floating_point() else tensor, name, weights.path)
        if placed.data_ptr() != tensor.data_ptr() or tensor.shape != lazy.shape:
            lazy.release()
        elif lazy.is_shared:
            weights.taken.add(name)


def check_fit(weights: LazyStateDict, targets: Mapping[str, Tensor],
              may_miss: Callable[[str], bool]) -> None:
    """Refuses weights that do not fit a model.

    Args:
        weights: Weights of a file.
        targets: State dict of the model.
        may_miss: See :func:`fill`.

    Raises:
        InputError: Naming the options of the backbone that differ, the names that are missing or
            left over, or the first tensor that does not fit.
    """
    _check_architecture(weights, targets)
    _check_names(weights, targets, may_miss)
    _check_tensors(weights, targets)


def _check_architecture(weights: LazyStateDict, targets: Mapping[str, Tensor]) -> None:
    """Refuses a network of other proportions."""
    prefix = '' if NATIVE.anchor in targets else BACKBONE
    shapes = [{name.removeprefix(prefix): tuple(tensor.shape)
               for name, tensor in tensors.items() if name.startswith(prefix)}
              for tensors in (targets, weights)]
    if not all(NATIVE.anchor in each for each in shapes):
        return  # other networks have no such proportions
    check_dimensions({name: shape for name, shape in shapes[1].items() if name in shapes[0]},
                     weights.path)
    here, there = map(Architecture.of, shapes)
    differing = here.differences(there)
    if differing:
        model = ', '.join(f'{name}={mine!r}' for name, (mine, _) in differing.items())
        file = ', '.join(f'{name}={theirs!r}' for name, (_, theirs) in differing.items())
        recipes = describe_releases(weights.path, there.embed_dim, there.depth)
        raise InputError(f'{weights.path} holds an InternViT with {file}, the model has {model}: '
                         + (f'take a recipe of {recipes}, ' if recipes else '')
                         + f'set {file} in model.backbone, or use the file of this model')


def _check_names(weights: LazyStateDict, targets: Mapping[str, Tensor],
                 may_miss: Callable[[str], bool]) -> None:
    """Refuses names that are missing or left over."""
    for name in weights:
        if weight_of(name) != name and name not in targets and weight_of(name) in weights:
            check_float(weights, weight_of(name))
    missing = [name for name in targets if name not in weights and not may_miss(weight_of(name))
               and not _is_computed(name, weights)]
    unexpected = [name for name in weights if name not in targets] + weights.unknown
    if missing or unexpected:
        raise Mismatch(f'{weights.path} does not fit the model: '
                       f'{describe_mismatch(missing, unexpected)}', [
                           name.partition('.')[0] for name in missing + unexpected])


def _is_computed(name: str, weights: LazyStateDict) -> bool:
    """Whether a tensor is the scales of a weight that is rounded as it is placed."""
    weight = weight_of(name)
    return weight != name and weight in weights and weights[weight].dtype in FLOATS


def _check_tensors(weights: LazyStateDict, targets: Mapping[str, Tensor]) -> None:
    """Refuses quantised tensors, and other shapes (a position embedding may have another grid)."""
    others = [name for name, tensor in weights.items() if not _is_loadable(name, tensor.shape,
                                                                           targets[name].shape)]
    if others:
        name, more = others[0], f' (and so with {some_of(others[1:])})' if others[1:] else ''
        raise Mismatch(f'{weights.path}: {name} has shape {tuple(weights[name].shape)}, the model '
                       f'expects {tuple(targets[name].shape)}{more}', map(_part_of, others))
    for name, tensor in weights.items():
        wanted = targets[name].dtype
        if wanted.is_floating_point or tensor.dtype not in INTEGERS:
            check_float(weights, name)
        elif wanted in STORED.values() and tensor.dtype != wanted:
            raise InputError(f'{weights.path}: {name} was rounded to another format of 8 bits '
                             f'({str(tensor.dtype).removeprefix("torch.")}): set '
                             'model.backbone.frozen_dtype to that of the checkpoint')


def _is_loadable(name: str, shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a shape is the model's, or that of a position embedding of another grid."""
    shape, wanted = tuple(shape), tuple(wanted)
    return shape == wanted or name.endswith('pos_embed') and _is_grid(shape) and _is_grid(
        wanted) and shape[-1] == wanted[-1]


def _part_of(name: str) -> str:
    """Returns the layer that a parameter belongs to: 'decode_head.conv_seg'."""
    return name.rpartition('.')[0] or name


def check_float(weights: LazyStateDict, name: str) -> None:
    """Refuses a quantised tensor.

    Raises:
        InputError: Naming it and its dtype.
    """
    dtype = weights[name].dtype
    if dtype not in FLOATS:
        raise InputError(f'{weights.path}: {name} is {str(dtype).removeprefix("torch.")}: '
                         'quantised weights do not load, use a bfloat16, float16 or float32 '
                         'release; for a checkpoint of a run with model.backbone.frozen_dtype, '
                         'set it to the same')


def refuse_nonfinite(tensor: Tensor, name: str, path: str) -> Tensor:
    """Returns the tensor, but refuses NaN and infinity.

    Raises:
        InputError: Naming the tensor and its dtype.
    """
    if not tensor.isfinite().all():
        raise InputError(f'{path}: {name} holds NaN or infinity in '
                         f'{str(tensor.dtype).removeprefix("torch.")}: the file is damaged, or its '
                         'training diverged')
    return tensor


def resample(pos_embed: Tensor, num_tokens: int) -> Tensor:
    """Resamples a position embedding (1, 1 + N, D) to (1, num_tokens, D), in float32."""
    side = round((num_tokens - 1) ** 0.5)
    return resample_pos_embed(pos_embed.float(), (side, side))


def place(module: nn.Module, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Makes a tensor the value of a parameter or buffer, and returns the module's tensor.

    On the meta device, and where the dtype changes, the parameter becomes a new one on the tensor
    (the tensor itself if its dtype fits); elsewhere its values are overwritten. A layer with
    weights of 8 bits rounds those that it gets in floating point.
    """
    owner_name, _, leaf = name.rpartition('.')
    owner = module.get_submodule(owner_name)
    owner = getattr(owner, 'base_layer', owner)  # of a layer with adapters
    if isinstance(owner, QuantizedLinear) and leaf == 'weight' and tensor.is_floating_point():
        owner.store(tensor)
        return owner.weight
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


