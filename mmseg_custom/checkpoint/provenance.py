"""The file that the weights of a backbone come from: kept, recorded by SHA-256, and verified.

A checkpoint of a frozen backbone holds no copy of it, only ``meta['backbone']``:

    path               file or folder, as it was named at the time
    sha256, bytes      of the file (of a folder: over the names and SHA-256 of its files)
    pos_embed_tokens   1 + N tokens of the position embedding in the model
    dtype              dtype of the backbone's tensors in the model
    other_dtypes       name -> dtype, where a tensor has another one
    left_out           parts of the file that the model does not have, if any: see :mod:`.changes`
    patch_size         side in pixels that the patch embedding is resampled to, if it is
    places             in the place of pos_embed_tokens, for a network that is no InternViT, whose
                       names keys.py does not translate: name -> place in the file

which is enough to rebuild every tensor bit by bit from the file.
"""
import hashlib
import os
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import InputError
from .folders import shards_of, weights_file_of
from .user_cache import identity_of, read_cache, write_cache

CHUNK_BYTES = 8 << 20
CACHE = 'sha256.json'
_LOCK = threading.Lock()
_HASHES: dict[str, str] = {}  # identity of a file -> SHA-256
# Where a tensor is in a file: its name there, and which of how many equal parts of it.
Place = tuple[str, int, int]


@dataclass(frozen=True)
class WeightsSource:
    """Where a backbone's tensors come from.

    Attributes:
        path: File or folder, absolute.
        names: The backbone's tensors that were in it.
        left_out: Parts of the file that the backbone does not have: see :mod:`.changes`.
        patch_size: Side in pixels that its patch embedding is resampled to; None if it is not.
        places: Their places in it, by name; None for an InternViT, whose names are translated.
    """
    path: str
    names: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    patch_size: int | None = None
    places: Mapping[str, Place] | None = None


def set_weights_source(backbone: nn.Module, source: WeightsSource | None) -> None:
    """Sets where a backbone's tensors come from, until other ones are loaded into it.

    A later ``load_state_dict`` (mmcv's too) takes the source away, unless the state dict brings
    its own: see :func:`metadata_of`. So a checkpoint never refers to a file whose tensors were
    overwritten.
    """
    if not hasattr(backbone, 'weights_source'):
        backbone.register_load_state_dict_pre_hook(_replace_source)
    backbone.weights_source = source


def weights_source_of(backbone: nn.Module | None) -> WeightsSource | None:
    """Returns where a backbone's tensors come from; None if from no file, or without backbone."""
    return getattr(backbone, 'weights_source', None)


def metadata_of(source: WeightsSource) -> dict:
    """Returns an entry for ``state_dict._metadata`` that keeps the source when it is loaded.

    Plain values, so that such a state dict can be saved and read again.
    """
    places = {} if source.places is None else dict(weights_places=dict(source.places))
    return dict(version=1, weights_path=source.path, weights_names=list(source.names),
                weights_left_out=list(source.left_out), weights_patch_size=source.patch_size,
                **places)


def _replace_source(backbone: nn.Module, state_dict: dict, prefix: str, local_metadata: dict,
                    *_: object) -> None:
    path = local_metadata.get('weights_path')
    backbone.weights_source = path and WeightsSource(
        path, tuple(local_metadata['weights_names']),
        tuple(local_metadata.get('weights_left_out', ())),
        local_metadata.get('weights_patch_size'), local_metadata.get('weights_places'))


def record(backbone: nn.Module, source: WeightsSource) -> dict:
    """Describes the file of a frozen backbone for the metadata of a checkpoint."""
    dtypes = {**dtypes_of(backbone), **getattr(backbone, 'dropped_dtypes', {})}
    return record_of(source, {name: dtypes[name] for name in source.names},
                     None if source.places is not None else backbone.pos_embed.shape[1])


def dtypes_of(backbone: nn.Module) -> dict[str, torch.dtype]:
    """Returns the dtypes of a backbone's tensors by name.

    Of weights with 8 bits, it is the one that they were rounded to before, which other layers have:
    the record of a file does not depend on ``frozen_dtype``.
    """
    return {name: tensor.dtype if tensor.is_floating_point() else backbone.dtype
            for name, tensor in backbone.state_dict().items()}


def record_of(source: WeightsSource, dtypes: dict[str, torch.dtype],
              pos_embed_tokens: int | None) -> dict:
    """Makes the record of a backbone's file; reads the file for its hash.

    Args:
        source: File, and the tensors that come from it.
        dtypes: Dtypes that these have in the model, by name.
        pos_embed_tokens: 1 + N tokens of the position embedding of an InternViT.
    """
    names = {name: str(dtype).removeprefix('torch.') for name, dtype in dtypes.items()}
    common = Counter(names.values()).most_common(1)[0][0]
    found = dict(
        path=source.path, sha256=sha256_of(source.path), bytes=bytes_of(source.path), dtype=common,
        other_dtypes={name: dtype for name, dtype in names.items() if dtype != common})
    if source.places is None:
        found['pos_embed_tokens'] = pos_embed_tokens
    else:
        found['places'] = {name: list(source.places[name]) for name in source.names}
    if source.left_out:
        found['left_out'] = list(source.left_out)
    if source.patch_size is not None:
        found['patch_size'] = source.patch_size
    return found


class DroppedBlock(nn.Module):
    """Stands in the place of a frozen block whose memory was freed."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Raises RuntimeError."""
        raise RuntimeError('the blocks of this backbone were dropped: it trains on a feature '
                           'cache; build it again for images')


def droppable_blocks(backbone: nn.Module) -> list[int]:
    """Lists the blocks that training needs no more, where features are given for the frozen part.

    These are the blocks before the first trained one, and those that are not read; none of a
    backbone that does not offer its blocks.
    """
    if not hasattr(backbone, 'blocks'):
        return []
    needed = range(backbone.first_trained, max(backbone.out_indices) + 1)
    return [i for i in range(len(backbone.blocks)) if i not in needed]


def drop_blocks(backbone: nn.Module) -> None:
    """Frees the memory of a backbone's frozen blocks, which are in its weights' file.

    Checkpoints refer to the file for them as before. Trained blocks stay.
    """
    dropped = droppable_blocks(backbone)
    prefixes = tuple(f'blocks.{i}.' for i in dropped)
    backbone.dropped_dtypes = {name: dtype for name, dtype in dtypes_of(backbone).items()
                               if name.startswith(prefixes)}
    for i in dropped:
        backbone.blocks[i] = DroppedBlock()


def recorded_dtype(record: dict, name: str) -> torch.dtype:
    """Returns the dtype that a tensor of the backbone had in the model."""
    return getattr(torch, record['other_dtypes'].get(name, record['dtype']))


def verify(record: dict, path: str, checkpoint: str) -> None:
    """Refuses another backbone than the one that a checkpoint was trained on.

    Raises:
        InputError: Naming both files.
    """
    found, wanted = f'{bytes_of(path)} bytes', f'{record["bytes"]} bytes'
    if found == wanted:
        found, wanted = sha256_of(path), record['sha256']
    if found != wanted:
        raise InputError(f'{checkpoint} was trained on the backbone {record["path"]} '
                         f'({_short(wanted)}), but {path} is another one ({_short(found)}): give '
                         'the file it was trained on')


def sha256_of(path: str) -> str:
    """Returns the SHA-256 of a file, or of the list of a folder's weight files.

    Costs about 2 s a gigabyte the first time. It is kept in memory and in the user's cache folder
    for as long as size, time and inode of the file stay the same. A second thread that asks
    meanwhile waits.
    """
    files = _files(path)
    if files != [path]:
        return sha256_of_all(files)
    with _LOCK:
        return _file_sha256(path)


def known_sha256(path: str) -> str | None:
    """Returns the SHA-256 of :func:`sha256_of` if it was computed in this process; else None."""
    try:
        known = all(identity_of(file) in _HASHES for file in _files(path))
    except OSError:
        return None
    return sha256_of(path) if known else None


def sha256_of_all(files: list[str]) -> str:
    """Returns one SHA-256 over the names and hashes of files."""
    with _LOCK:
        lines = [f'{_file_sha256(file)}  {os.path.basename(file)}\n' for file in files]
    return hashlib.sha256(''.join(lines).encode()).hexdigest()


def sha256_in_background(path: str) -> threading.Thread:
    """Computes the SHA-256 ahead, so that the first checkpoint does not wait for it."""
    thread = threading.Thread(target=sha256_of, args=(path,), daemon=True)
    thread.start()
    return thread


def bytes_of(path: str) -> int:
    """Returns the size of a file, or of a folder's weight files together."""
    return sum(os.path.getsize(file) for file in _files(path))


def _files(path: str) -> list[str]:
    file = weights_file_of(path) if os.path.isdir(path) else path
    return sorted(shards_of(file)) if file.endswith('.index.json') else [file]


def _file_sha256(path: str) -> str:
    identity = identity_of(path)
    if identity not in _HASHES:
        _HASHES.update(read_cache(CACHE))
    if identity not in _HASHES:
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(CHUNK_BYTES))
        with open(path, 'rb', buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
        _HASHES[identity] = digest.hexdigest()
        write_cache(CACHE, _HASHES)
    return _HASHES[identity]


def _short(text: str) -> str:
    return f'SHA-256 {text[:12]}...' if len(text) == 64 else text
