"""Opens files of weights of any format, safely and without a copy.

Tensors that come out of here are views of private, writable mappings of the file: they cost no
memory until they are touched, ranks on a node share the pages, and writing to one copies only the
pages that are written. A file that is mapped must not be overwritten in place (the reader would
die of SIGBUS); replacing it by a rename, as everything in this package does, is safe.
"""
import functools
import logging
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import InputError
from ..missing import look_around
from . import deepspeed
from .archive import Archive, DamagedFile
from .content import check_names, check_values
from .folders import all_shards_of, shards_of, weight_map_of, weights_file_of
from .integrity import check_archive, check_safetensors, check_sums, damaged_line
from .lazy import LazyStateDict, LazyTensor
from .pickles import check_pickle

LEGACY_PICKLES = ('magic number', 'protocol', 'system', 'content', 'keys of storages')
LEGACY_BYTES = 64 << 20  # most bytes of these
WRAPPERS = ('state_dict', 'module', 'model')  # the keys under which files keep their weights


def read_weights(path: str, everything: bool = False) -> LazyStateDict:
    """Opens a .pth, a safetensors file, a Hugging Face folder (or its index), or DeepSpeed's.

    Args:
        path: File or folder; its content, not its name, shows its format.
        everything: Whether to open the shards too that the network is not in.

    Raises:
        InputError: If it is missing, unreadable, cut short, holds code, or holds no weights.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        weights = read_weights(weights_file_of(path), everything)
        weights.path = path
        return weights
    if path.endswith('.index.json'):
        return _read_shards(path, everything)
    return find_weights(*safe_load(path), path)


def safe_load(path: str) -> tuple[dict, bool]:
    """Reads a file of tensors without running anything that is in it.

    Its checksums are checked, in the background if it is large: see :mod:`.integrity`.

    Args:
        path: File of ``torch.save``, or a safetensors file (which becomes ``state_dict``).

    Returns:
        (the dict that was saved, whether its tensors are views of the mapped file; not so in
        torch's old format).

    Raises:
        InputError: If the file is missing, unreadable, damaged, no dict, or would run code or take
            more memory than its size.
    """
    if os.path.isdir(path):
        raise InputError(f'{path} is a folder: expected a checkpoint file')
    form = sniff(path)
    if form == 'safetensors':
        return dict(state_dict=_read_safetensors(path)), True
    mapped = form == 'zip'
    nbytes = os.path.getsize(path)
    pickle_bytes = _check_pickle_of(path, mapped)
    if not mapped:
        logging.getLogger('mmseg').warning(
            '%s has the format of torch before 1.6 and is read into memory whole; '
            'tools/convert_weights.py makes a file of it that is mapped', path)
    content = _torch_load(path, mapped)
    if not isinstance(content, dict):
        raise InputError(f'{path} holds a {type(content).__name__}: expected a dict of weights')
    check_values(content, path, pickle_bytes, nbytes)
    for name in [name for name, value in content.items() if isinstance(value, deepspeed.Unread)]:
        del content[name]
    if mapped:
        check_sums(path, nbytes, functools.partial(check_archive, path))
    return content, mapped


def find_weights(content: dict, mapped: bool, path: str) -> LazyStateDict:
    """Finds the state dict in the content of a file: flat, or under one of ``WRAPPERS``.

    Args:
        content: Content of the file.
        mapped: Whether its tensors are views of the mapped file.
        path: Name of the file.

    Raises:
        InputError: If there is none.
    """
    deepspeed.check_states(content, path)
    wrapper = wrapper_of(content)
    if wrapper is not None:
        content = content[wrapper]
    if not content:
        raise InputError(f'{path} holds {_brief(content)}: expected a dict of tensors, flat or '
                         f'under {", ".join(map(repr, WRAPPERS))}')
    check_names(content, path)
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise InputError(f'{path}: {name!r} is {_brief(value)}: expected a tensor (weights '
                             f'are looked for at the top and under '
                             f'{", ".join(map(repr, WRAPPERS))})')
    return LazyStateDict(path, {name: LazyTensor.of(tensor, mapped)
                                for name, tensor in content.items()})


def wrapper_of(content: dict) -> str | None:
    """Finds the key under which a file keeps its weights; None if they are at the top."""
    return next((name for name in WRAPPERS if isinstance(content.get(name), dict)), None)


def sniff(path: str) -> str:
    """Tells a file's format from its first bytes.

    Returns:
        'zip' (torch.save since 1.6), 'legacy' (torch.save before) or 'safetensors'.

    Raises:
        InputError: If it is none of them, or cannot be read.
    """
    if not os.path.exists(path):
        raise InputError(f'{path} does not exist{look_around(str(path))}')
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


def _check_pickle_of(path: str, mapped: bool) -> int:
    """Checks the bounds of a file of torch.save, and the checksums of what describes its tensors.

    Returns:
        Bytes that describe the tensors.

    Raises:
        InputError: If it is cut short, damaged, or would take more memory than its size.
    """
    try:
        with open(path, 'rb') as file:
            if mapped:
                archive = Archive(file)
                archive.check(tensors=False)
                data = archive.read('data.pkl')
                check_pickle(data)
                return len(data)
            data = file.read(LEGACY_BYTES)
        end = 0
        for _ in LEGACY_PICKLES:
            end += check_pickle(data[end:])
        return end
    except DamagedFile as error:
        raise InputError(damaged_line(path, str(error))) from error
    except ValueError as error:
        raise InputError(f'{path} was refused, or is damaged: {error}') from error


def _torch_load(path: str, mapped: bool) -> object:
    """Calls torch.load such that no code runs."""
    try:
        try:
            return _load_values(path, mapped)
        except pickle.UnpicklingError:
            unread = deepspeed.classes_in(path) if mapped else []
            if not unread:
                raise
            return _load_values(path, mapped, [(deepspeed.Unread, name) for name in unread])
    except pickle.UnpicklingError as error:
        raise InputError(_refusal(path, error)) from error
    except Exception as error:  # torch trusts the file, so any error is the file's fault
        first_line = (str(error).strip().splitlines() or [repr(error)])[0]
        raise InputError(f'{path} cannot be read as a .pth: {first_line}') from error


def _load_values(path: str, mapped: bool, unread: Sequence[tuple[type, str]] = ()) -> object:
    with torch.serialization.safe_globals([*_metadata_types(), *unread]):
        if not path.endswith('.safetensors'):
            return torch.load(path, map_location='cpu', weights_only=True, mmap=mapped)
        # From 2.15 on PyTorch believes this name, and it maps files by their names alone.
        with open(path, 'rb') as file:
            return torch.load(file, map_location='cpu', weights_only=True)


def _refusal(path: str, error: Exception) -> str:
    """Describes in a line why torch refused a pickle."""
    text = str(error).partition('WeightsUnpickler error:')[2] or str(error)
    reason = (text.strip().splitlines() or [''])[0]
    found = (re.search(r'GLOBAL (\S+)', str(error))
             or re.search(r"(?:function|got) <(?:[a-z-]+ )*'?([\w.]+)", reason))
    if found is None:
        return f'{path} is damaged, or was not written by torch.save ({reason})'
    way_out = (deepspeed.MERGE if path.endswith('_states.pt') else
               'save it again with tensors, numbers, strings, lists and dicts alone')
    return (f'{path} was refused: it asks for {found.group(1)}, and a checkpoint may hold tensors '
            f'and plain values only, for anything else could run code; {way_out}')


@functools.cache
def _metadata_types() -> list:
    """Returns the types in mmcv's metadata beyond plain values; none of them runs code.

    numpy scalars come from ``best_score`` and ``hook_msgs``, ConfigDict from ``meta['config']``.
    The latter is read as a plain ordered dict, so that mmcv is not needed to read a file.
    """
    from numpy._core import multiarray  # which numpy 1.26 has under the name of numpy 2, too
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
            tensors = {name: f.get_tensor(name) for name in f.keys()}
    except SafetensorError as error:
        raise InputError(f'{path} is cut short or damaged ({error}): fetch or save it '
                         'again') from error
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f'{path} cannot be read: {error}') from error  # e.g. a dtype of its own
    check_sums(path, os.path.getsize(path), functools.partial(check_safetensors, path))
    return tensors


def _read_shards(index: str, everything: bool) -> LazyStateDict:
    """Opens the shards of an index that the network is in; a language model's stay closed."""
    shards = all_shards_of(index) if everything else shards_of(index)
    names = {os.path.basename(shard) for shard in shards}
    weights = LazyStateDict(index, {}, not_opened=[
        name for name, file in weight_map_of(index).items() if file not in names])
    for shard in shards:
        if not os.path.exists(shard):
            raise InputError(f'{shard}: this shard is missing ({len(shards)} are listed in '
                             f'{os.path.basename(index)}): fetch it')
        weights.update(find_weights(*safe_load(shard), shard))
    return weights


def _brief(value: object) -> str:
    if isinstance(value, dict):
        return f'a dict of {len(value)} entries ({", ".join(map(repr, list(value)[:4]))}, ...)'
    return f'a {type(value).__name__}'
