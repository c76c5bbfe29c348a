"""Opening files of weights: safely, without a copy, whatever the format.

Tensors that come out of here are views of private, writable mappings of the file: they cost no
memory until they are touched, ranks on a node share the pages, and writing to one copies only the
pages that are written. A file that is mapped must not be overwritten in place (the reader would
die of SIGBUS); replacing it by a rename, as everything in this package does, is safe.
"""
import ctypes
import functools
import json
import logging
import mmap
import os
import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import InputError
from .keys import find_network

FOLDER_FILES = ('model.safetensors.index.json', 'model.safetensors',
                'pytorch_model.bin.index.json', 'pytorch_model.bin')
WRAPPERS = ('state_dict', 'module', 'model')  # the keys under which files keep their weights


@dataclass
class Weights:
    """The tensors of a file or folder, by their names in it.

    Attributes:
        path: File or folder.
        tensors: Name -> tensor, on the CPU.
        mapped: Whether the tensors are views of the file (false for files in torch's old format).
        not_opened: Names that the index of a folder lists in shards that nothing is needed from.
    """
    path: str
    tensors: dict[str, Tensor]
    mapped: bool = True
    not_opened: list[str] = field(default_factory=list)


def read_weights(path: str) -> Weights:
    """Opens a .pth, a safetensors file, or a Hugging Face folder (or its index).

    Args:
        path: File or folder; what it is shows in its content, not in its name.

    Raises:
        InputError: If it is missing, unreadable, cut short, holds code, or holds no weights.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        return _read_folder(path)
    if path.endswith('.index.json'):
        return _read_shards(path)
    if sniff(path) == 'safetensors':
        return Weights(path, _read_safetensors(path))
    content, mapped = _torch_load(path)
    return Weights(path, tensors_of(content, path), mapped)


def safe_load(path: str) -> dict:
    """Reads a checkpoint without running anything that is in it; its tensors are mapped.

    Args:
        path: A file of ``torch.save``, or a safetensors file (which becomes ``state_dict``).

    Returns:
        The dict that was saved.

    Raises:
        InputError: If the file is missing, unreadable, cut short, no dict, or would run code.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        raise InputError(f'{path} is a folder: expected a checkpoint file')
    if sniff(path) == 'safetensors':
        return dict(state_dict=_read_safetensors(path))
    content, _ = _torch_load(path)
    if not isinstance(content, dict):
        raise InputError(f'{path} holds a {type(content).__name__}: expected a dict of weights')
    return content


def tensors_of(content: object, path: str) -> dict[str, Tensor]:
    """Finds the state dict in what a .pth holds: flat, or under one of ``WRAPPERS``."""
    for name in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict) or not content:
        raise InputError(f'{path} holds {_brief(content)}: expected a dict of tensors, flat or '
                         f'under {", ".join(map(repr, WRAPPERS))}')
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise InputError(f'{path}: {name!r} is {_brief(value)}: expected a tensor (weights '
                             f'are looked for at the top and under '
                             f'{", ".join(map(repr, WRAPPERS))})')
    return dict(content)


def sniff(path: str) -> str:
    """Tells a file's format from its first bytes.

    Returns:
        'zip' (torch.save since 1.6), 'legacy' (torch.save before) or 'safetensors'.

    Raises:
        InputError: If it is none of them, or cannot be read.
    """
    if not os.path.exists(path):
        raise InputError(f'{path}: no such file')
    try:
        with open(path, 'rb') as f:
            head = f.read(24)
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror}') from error
    if head.startswith(b'PK\x03\x04'):
        return 'zip'
    if head[8:9] == b'{' and int.from_bytes(head[:8], 'little') < 1 << 30:
        return 'safetensors'
    if head.startswith(b'\x80'):
        return 'legacy'
    if not head:
        raise InputError(f'{path} is empty (0 bytes): fetch it again')
    if head.startswith(b'version https://git-lfs'):
        raise InputError(f'{path} is a Git LFS pointer, not the weights: run `git lfs pull`')
    if head.lstrip().lower().startswith((b'<!doctype', b'<html')):
        raise InputError(f'{path} is a web page, not weights: fetch the file itself')
    raise InputError(f'{path} is neither a .pth nor a safetensors file (it begins with '
                     f'{head[:8]!r})')


def shards_of(index: str) -> list[str]:
    """The paths of the shards in an index that the network is in."""
    weight_map = _weight_map(index)
    _, prefix = find_network(weight_map, index)
    shards = {file for name, file in weight_map.items() if name.startswith(prefix)}
    return [os.path.join(os.path.dirname(index), shard) for shard in sorted(shards)]


def release_pages(tensor: Tensor) -> None:
    """Lets go of the pages of a mapped tensor that was read and is not needed in memory any more.

    The tensor stays valid: its next use reads the file again. Without this, reading a file through
    its mapping counts all of it as resident. Only for tensors that were never written to, and only
    for mapped ones: on other memory it would destroy the content.
    """
    if not sys.platform.startswith('linux'):
        return
    page = mmap.PAGESIZE
    start = -(-tensor.data_ptr() // page) * page
    stop = (tensor.data_ptr() + tensor.nbytes) // page * page
    if stop > start:
        _libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_DONTNEED)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _torch_load(path: str) -> tuple[object, bool]:
    """torch.load without code: (content, whether its tensors are mapped)."""
    mapped = sniff(path) == 'zip'
    if not mapped:
        logging.getLogger('mmseg').warning(
            '%s has the format of torch before 1.6 and is read into memory whole; '
            'tools/convert_weights.py makes a file of it that is mapped', path)
    try:
        with torch.serialization.safe_globals(_metadata_types()):
            return torch.load(path, map_location='cpu', weights_only=True, mmap=mapped), mapped
    except pickle.UnpicklingError as error:
        raise InputError(_refusal(path, error)) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        if mapped and not _has_whole_directory(path):
            raise InputError(f'{path} is cut short ({os.path.getsize(path)} bytes): fetch or '
                             'save it again') from error
        first_line = (str(error).strip().splitlines() or [repr(error)])[0]
        raise InputError(f'{path} cannot be read as a .pth: {first_line}') from error


def _has_whole_directory(path: str) -> bool:
    try:
        with zipfile.ZipFile(path):
            return True
    except (zipfile.BadZipFile, OSError):
        return False


def _refusal(path: str, error: Exception) -> str:
    """One line about a pickle that torch refused."""
    text = str(error).partition('WeightsUnpickler error:')[2] or str(error)
    reason = (text.strip().splitlines() or [''])[0]
    found = (re.search(r'GLOBAL (\S+)', str(error))
             or re.search(r"(?:function|got) <(?:[a-z-]+ )*'?([\w.]+)", reason))
    if found is None:
        return f'{path} is damaged, or was not written by torch.save ({reason})'
    return (f'{path} was refused: it asks for {found.group(1)}, and a checkpoint may hold tensors '
            'and plain values only, for anything else could run code; save it again with '
            'tensors, numbers, strings, lists and dicts alone')


@functools.cache
def _metadata_types() -> list:
    """What the metadata of mmcv's checkpoints may hold beyond plain values; none of it runs code.

    numpy scalars come from ``best_score`` and ``hook_msgs``, ConfigDict from ``meta['config']``.
    The latter is read as a plain ordered dict, so that mmcv is not needed to read a file.
    """
    multiarray = getattr(np, '_core', None) or np.core  # numpy 2 renamed it
    multiarray = multiarray.multiarray
    types = [np.ndarray, np.dtype, (range, 'builtins.range'), (range, '__builtin__.range'),
             (OrderedDict, 'mmcv.utils.config.ConfigDict'), (OrderedDict, 'addict.addict.Dict')]
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        types.append((multiarray.scalar, f'{module}.scalar'))
        types.append((multiarray._reconstruct, f'{module}._reconstruct'))
    for name in '?bBhHiIlLqQefdU':
        types.append(type(np.dtype(name)))
    return types


def _read_safetensors(path: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework='pt', device='cpu') as f:
            return {name: f.get_tensor(name) for name in f.keys()}
    except SafetensorError as error:
        raise InputError(f'{path} is cut short or damaged ({error}): fetch or save it '
                         'again') from error
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error}') from error


def _read_folder(folder: str) -> Weights:
    for name in FOLDER_FILES:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            weights = _read_shards(path) if name.endswith('.json') else read_weights(path)
            weights.path = folder
            return weights
    raise InputError(f'{folder} holds no weights: expected one of {", ".join(FOLDER_FILES)}')


def _read_shards(index: str) -> Weights:
    """Opens the shards of an index that the network is in; a language model's are left alone."""
    shards = shards_of(index)
    names = {os.path.basename(shard) for shard in shards}
    weights = Weights(index, {}, not_opened=[name for name, file in _weight_map(index).items()
                                             if file not in names])
    for shard in shards:
        if not os.path.exists(shard):
            raise InputError(f'{shard}: this shard is missing ({len(shards)} are listed in '
                             f'{os.path.basename(index)}): fetch it')
        part = read_weights(shard)
        weights.tensors.update(part.tensors)
        weights.mapped &= part.mapped
    return weights


def _weight_map(index: str) -> dict[str, str]:
    try:
        with open(index, encoding='utf-8') as f:
            return dict(json.load(f)['weight_map'])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f'{index} is no index of shards: {error!r}') from error


def _brief(value: object) -> str:
    if isinstance(value, dict):
        return f'a dict of {len(value)} entries ({", ".join(map(repr, list(value)[:4]))}, ...)'
    return f'a {type(value).__name__}'
