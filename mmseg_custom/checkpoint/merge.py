"""A small or sharded checkpoint -> one classic file, and a classic one -> a small one.

See :mod:`.segmentor` for the two forms.
"""
import os

import torch

from ..errors import InputError
from . import provenance
from .convert import lazy
from .export import SILENT, Progress, write_pth, write_safetensors
from .files import safe_load
from .keys import BACKBONE
from .lazy import LazyStateDict, LazyTensor
from .load import open_backbone_weights, resample
from .metadata import plain
from .save import atomic_save
from .segmentor import complete, entry_of, find_backbone, open_checkpoint, own_tensors


def merge(checkpoint: str, target: str, backbone: str | None = None,
          progress: Progress = SILENT) -> None:
    """Writes a checkpoint that holds everything: .pth for mmcv, .safetensors for the weights alone.

    Args:
        checkpoint: A small one, or the folder of a sharded one.
        target: File to write; must not exist.
        backbone: Its backbone's file; default: see :func:`.segmentor.find_backbone`.
        progress: Told of each tensor.

    Raises:
        InputError: If the checkpoint is classic already, or the backbone is another.
        SaveError: If the target cannot be written.
    """
    _refuse_existing(target)
    classic = not target.endswith('.safetensors')
    content = open_checkpoint(checkpoint, optimizer=classic)
    entry = entry_of(content)
    network = own_tensors(content, checkpoint)
    if entry is not None:
        path = backbone or find_backbone(entry, checkpoint)
        provenance.verify(entry, path, checkpoint)
        complete(network, entry, path)
    elif classic and not os.path.isdir(checkpoint):
        raise InputError(f'{checkpoint} is a classic checkpoint already: nothing to merge')
    tensors = {name: lazy(network, name) for name in network.parts}
    state = content.get('optimizer', {}).get('state', {}) if classic else {}
    extra = [value for values in state.values() for value in values.values()
             if isinstance(value, (torch.Tensor, LazyTensor))]
    progress.reset(sum(tensor.nbytes for tensor in (*tensors.values(), *extra)))
    if not classic:
        write_safetensors(target, tensors, progress)
        return
    meta = {name: value for name, value in content['meta'].items() if name != 'backbone'}
    write_pth(target, {**content, 'meta': plain(meta), 'state_dict': tensors}, progress)


def split(checkpoint: str, target: str, backbone: str) -> tuple[int, int]:
    """Writes a small checkpoint: what the backbone's file holds bit by bit is left out.

    Args:
        checkpoint: A classic one.
        target: File to write; must not exist.
        backbone: The file that its backbone was loaded from.

    Returns:
        (tensors left out, tensors kept).

    Raises:
        InputError: If nothing can be left out.
        SaveError: If the target cannot be written.
    """
    _refuse_existing(target)
    content = safe_load(checkpoint)
    if entry_of(content) is not None:
        raise InputError(f'{checkpoint} is a small checkpoint already: nothing to split off')
    network = own_tensors(content, checkpoint)
    base = open_backbone_weights(backbone)
    same = [name for name in base.parts if _equal(network, base, name)]
    if not same:
        raise InputError(f'{checkpoint} shares no tensor with {backbone}: its backbone was '
                         'trained, or loaded from another file')
    dtypes = {name: str(network.dtype(BACKBONE + name)).removeprefix('torch.') for name in same}
    common = max(set(dtypes.values()), key=list(dtypes.values()).count)
    entry = dict(
        path=os.path.abspath(backbone), sha256=provenance.sha256_of(backbone),
        bytes=provenance.bytes_of(backbone), dtype=common,
        pos_embed_tokens=network.shape(BACKBONE + 'pos_embed')[1],
        other_dtypes={name: dtype for name, dtype in dtypes.items() if dtype != common})
    kept = {name: network.tensor(name) for name in network.parts
            if name.removeprefix(BACKBONE) not in dtypes}
    meta = {**content.get('meta', {}), 'backbone': entry}
    atomic_save({**content, 'meta': plain(meta), 'state_dict': kept}, target)
    return len(same), len(kept)


def _equal(network: LazyStateDict, base: LazyStateDict, name: str) -> bool:
    """Whether a checkpoint's tensor is what its backbone's file gives."""
    full = BACKBONE + name
    if full not in network.parts:
        return False
    mine, theirs = network.tensor(full), base.tensor(name)
    if mine.shape != theirs.shape and name == 'pos_embed':
        theirs = resample(theirs, mine.shape[1])
    equal = mine.shape == theirs.shape and torch.equal(mine, theirs.to(mine.dtype))
    network.release(full)
    base.release(name)
    return equal


def _refuse_existing(target: str) -> None:
    if os.path.exists(target):
        raise InputError(f'{target} exists: remove it first, or give another name')
