"""Small or sharded checkpoint -> one classic file, and classic checkpoint -> small one.

See :mod:`.checkpoint` for the forms, and :mod:`.merge_adapters` for those with adapters.
"""
import os

import torch

from ..errors import InputError
from ..targets import try_target
from . import provenance
from .adapter_record import recorded_adapters
from .adapters import RoundingLoss
from .backbone_file import open_backbone_weights
from .checkpoint import open_checkpoint
from .content import check_optimizer
from .convert import progress_of, refuse_existing
from .depth import count_blocks
from .export import write_pth, write_safetensors
from .folders import is_adapter_folder
from .integrity import finish_checks
from .keys import BACKBONE, block_of
from .lazy import LazyStateDict, LazyTensor
from .load import resample
from .merge_adapters import is_folder_name, merge_checkpoint, merge_folder, write_folder_of
from .metadata import plain
from .segmentor import complete


def merge(path: str, target: str, backbone: str | None = None, *,
          show_progress: bool = False) -> RoundingLoss:
    """Writes a checkpoint that holds everything: .pth for mmcv, .safetensors for the weights alone.

    Adapters are merged into the weights that they are for. A folder of adapters is merged into a
    backbone; and a target without an ending is such a folder.

    Args:
        path: Small checkpoint, one with adapters, one of DeepSpeed, or a folder: of a sharded
            checkpoint, of weights, or of peft's adapters.
        target: File or folder to write; must not exist.
        backbone: Its backbone's file; default: see :func:`.segmentor.find_backbone`.
        show_progress: Whether to draw a progress bar on the terminal.

    Returns:
        What rounding merged weights to bfloat16 would lose; nothing was changed without adapters.

    Raises:
        InputError: If the target exists, a file cannot be read, the checkpoint is classic already,
            or the backbone is another.
        SaveError: If the target cannot be written.
    """
    refuse_existing(target)
    if is_adapter_folder(path):
        return merge_folder(path, target, backbone, show_progress=show_progress)
    checkpoint, loss = open_checkpoint(path), RoundingLoss()
    adapt = recorded_adapters(checkpoint.meta, checkpoint.weights, path)
    if adapt is not None and is_folder_name(target):
        write_folder_of(checkpoint, adapt, target, show_progress)
        return loss
    if target.endswith('/'):
        raise InputError(f'{path} holds no adapters, so that there is nothing to write into the '
                         f'folder {target}: end the name in .pth or .safetensors')
    weights, source = complete(checkpoint, backbone)
    if adapt is not None:
        checkpoint, weights = merge_checkpoint(checkpoint, weights, adapt, loss)
    try_target(target, sum(tensor.nbytes for tensor in weights.values()), make_folder=False)
    finish_checks()
    if target.endswith('.safetensors'):
        with progress_of(weights.values(), show_progress) as bar:
            write_safetensors(target, weights, bar.update)
        return loss
    if source is None and adapt is None and not (
            checkpoint.is_sharded or checkpoint.note or os.path.isdir(path)):
        raise InputError(f'{path} is a classic checkpoint already: nothing to merge')
    meta = {name: value for name, value in checkpoint.meta.items() if name != 'backbone'}
    state = (check_optimizer(checkpoint.optimizer, path) or {}).get('state', {})
    moments = [value for values in state.values() for value in values.values()
               if isinstance(value, (torch.Tensor, LazyTensor))]
    with progress_of([*weights.values(), *moments], show_progress) as bar:
        write_pth(target, checkpoint.to_dict(plain(meta), dict(weights)), bar.update)
    return loss


def split(path: str, target: str, backbone: str) -> tuple[int, int]:
    """Writes a small checkpoint: what the backbone's file holds bit by bit is left out.

    Args:
        path: Classic checkpoint, in a file or sharded.
        target: File to write; must not exist.
        backbone: File that its backbone was loaded from.

    Returns:
        (tensors left out, tensors kept).

    Raises:
        InputError: If the target exists, a file cannot be read, the checkpoint is small already,
            or nothing can be left out.
        SaveError: If the target cannot be written.
    """
    refuse_existing(target)
    checkpoint = open_checkpoint(path)
    if not checkpoint.holds_backbone:
        raise InputError(f'{path} is a small checkpoint already: nothing to split off')
    weights, base = checkpoint.weights, open_backbone_weights(backbone)
    finish_checks()
    same = [name for name, tensor in base.items() if BACKBONE + name in weights
            and _equal(weights[BACKBONE + name], tensor, name)]
    if not same:
        raise InputError(f'{path} shares no tensor with {backbone}: its backbone was '
                         'trained, or loaded from another file')
    record = provenance.record_of(
        provenance.WeightsSource(os.path.abspath(backbone), tuple(same), _unused(base, weights)),
        {name: weights[BACKBONE + name].dtype for name in same},
        weights[BACKBONE + 'pos_embed'].shape[1])
    referred = {BACKBONE + name for name in same}
    kept = {name: tensor for name, tensor in weights.items() if name not in referred}
    write_pth(target, checkpoint.to_dict(plain({**checkpoint.meta, 'backbone': record}), kept))
    return len(same), len(kept)


def _unused(base: LazyStateDict, weights: LazyStateDict) -> tuple[str, ...]:
    """Returns the parts of a backbone's file that a checkpoint's network does not have."""
    own = {name.removeprefix(BACKBONE) for name in weights}
    depth = count_blocks(own)
    return (*(name for name in base if name not in own and (block_of(name) or 0) < depth),
            *(f'blocks.{i}' for i in range(depth, count_blocks(base))))


def _equal(mine: LazyTensor, theirs: LazyTensor, name: str) -> bool:
    """Whether a checkpoint's tensor is what its backbone's file gives."""
    here, there = mine.read(), theirs.read()
    if here.shape != there.shape and name == 'pos_embed':
        there = resample(there, here.shape[1])
    equal = here.shape == there.shape and torch.equal(here, there.to(here.dtype))
    mine.release()
    theirs.release()
    return equal
