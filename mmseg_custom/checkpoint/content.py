"""What a file of weights may hold: checked once, when it is opened.

    everything   plain values, arrays and tensors, no more than its bytes can describe
    weights      names of one line -> dense tensors that are not larger than the file
    meta         classes and colours; complete records of a frozen backbone's file, of adapters
    and of a run that is resumed:
    optimizer    {state: {number: {name: value}}, param_groups: [{params: [number], ...}]}
    meta         iteration, seed, identity

All of these raise :class:`InputError`, naming the file and the entry.
"""
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..schema import shorten
from .adapter_record import check_record

DEPTH = 100  # most levels of dicts and lists in each other
NAME_LENGTH = 1000
RANGE = 10**6  # longest range, which is written as a list
# See provenance. The last one is of an InternViT; another network has places instead.
RECORD = {'path': str, 'sha256': str, 'bytes': int, 'dtype': str, 'other_dtypes': dict,
          'pos_embed_tokens': int}
_CLASSES = {'CLASSES': (list, tuple), 'PALETTE': (list, tuple, np.ndarray, Tensor)}
_PROGRESS = {'iter': int, 'epoch': int, 'seed': int, 'run': dict, 'hook_msgs': dict}


def check_values(content: object, path: str, pickle_bytes: int, file_bytes: int) -> None:
    """Checks the values of a file, in bounded time even where they refer to each other.

    Args:
        content: Content of the file.
        path: Name of the file.
        pickle_bytes: Bytes that describe everything but the numbers of its tensors.
        file_bytes: Bytes of the file.

    Raises:
        InputError: If it is nested too deeply, has more values than these bytes can hold, or a
            tensor or array that is larger than the file.
    """
    left = 10 * pickle_bytes + 10**5
    stack: list[tuple[Any, int]] = [(content, 0)]
    while stack:
        value, depth = stack.pop()
        left -= 1
        if left < 0 or depth > DEPTH:
            raise InputError(f'{path} was refused: its values are nested more than {DEPTH} times, '
                             'or more than its bytes can hold')
        if isinstance(value, Tensor):
            _check_tensor(value, path, file_bytes)
        elif isinstance(value, np.ndarray):
            if value.nbytes > file_bytes or value.dtype.kind in 'OV':
                raise InputError(f'{path} was refused: an array of {value.size} {value.dtype} in '
                                 f'{file_bytes} bytes')
        elif isinstance(value, range):
            if len(value) > RANGE:
                raise InputError(f'{path} was refused: {shorten(value)} is too long')
        elif isinstance(value, Mapping):
            left -= len(value)
            stack.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, (list, tuple, set, frozenset)):
            stack.extend((item, depth + 1) for item in value)


def check_names(names: Mapping, path: str) -> None:
    """Checks that the names of weights are printable strings of a sane length.

    Raises:
        InputError: If one is not.
    """
    for name in names:
        if not isinstance(name, str) or not name.isprintable() or len(name) > NAME_LENGTH:
            raise InputError(f'{path}: the name of a tensor is {shorten(name)}: expected text of '
                             f'one line, of at most {NAME_LENGTH} characters')


def check_optimizer(state: object, path: str) -> dict | None:
    """Checks the state dict of an optimizer, or of several by their names.

    Returns:
        The state dict; None if there is none.

    Raises:
        InputError: If a part of it is of another kind than expected.
    """
    if state is None:
        return None
    if isinstance(state, dict) and state and 'param_groups' not in state and all(
            isinstance(name, str) and isinstance(part, dict) for name, part in state.items()):
        for name, part in state.items():
            _check_one_optimizer(part, f'{path}: optimizer.{name}')
        return state
    _check_one_optimizer(state, f'{path}: optimizer')
    return state  # type: ignore[return-value]  # checked


def check_meta(meta: object, path: str) -> dict:
    """Checks the metadata of a checkpoint; what another program stores beside it is left alone.

    Returns:
        The metadata; empty if there is none.

    Raises:
        InputError: If an entry that is read is of another kind than expected.
    """
    if not isinstance(meta, dict):
        return {}
    _check_kinds(meta, _CLASSES, path)
    palette = meta.get('PALETTE')
    if palette is not None and not _are_colours(palette):
        raise InputError(f'{path}: meta.PALETTE is {shorten(palette)}: expected colours of 3 '
                         'numbers')
    if is_record(meta.get('backbone')):
        check_backbone_record(meta['backbone'], f'{path}: meta.backbone')
    check_record(meta.get('adapt'), path)
    return meta


def check_progress(meta: dict, path: str) -> None:
    """Checks what a run that is resumed reads of a checkpoint's metadata.

    Raises:
        InputError: If the iteration is missing, an entry is of another kind than expected, or the
            checkpoint is one of DeepSpeed.
    """
    if 'deepspeed' in meta:
        raise InputError(f'{path} is of a run with DeepSpeed, whose optimizer is not read: start a '
                         'new run from its weights with --load-from')
    _check_kinds(meta, _PROGRESS, path)
    if meta.get('iter') is None:
        raise InputError(f'{path} does not say after which iteration it was saved (meta.iter): '
                         'give it as --load-from')


def is_record(record: object) -> bool:
    """Whether it is the record of a frozen backbone's file, complete or not."""
    return isinstance(record, dict) and not record.keys().isdisjoint(RECORD)


def check_backbone_record(record: object, where: str) -> None:
    """Checks the record by which the file of a frozen backbone is found.

    Args:
        record: Content of ``meta['backbone']``.
        where: Name of the file, and of the place in it.

    Raises:
        InputError: If a value is missing, or of another kind than expected.
    """
    if not isinstance(record, dict):
        raise InputError(f'{where} is {shorten(record)}: expected a dict')
    kinds = dict(RECORD)
    if 'places' in record:
        del kinds['pos_embed_tokens']
        kinds['places'] = dict
    for name, kind in kinds.items():
        if not isinstance(record.get(name), kind) or isinstance(record.get(name), bool):
            raise InputError(f'{where}.{name} is {shorten(record.get(name))}: expected '
                             f'{_named(kind)}; save the checkpoint again, or give one that holds '
                             'its backbone')
    if not re.fullmatch('[0-9a-f]{64}', record['sha256']):
        raise InputError(f'{where}.sha256 is {shorten(record["sha256"])}: expected 64 hex digits')
    if 'places' in record:
        _check_places(record['places'], where)
    else:
        _check_tokens(record['pos_embed_tokens'], where)
    _check_changes(record, where)
    for dtype in (record['dtype'], *record['other_dtypes'].values()):
        if not isinstance(dtype, str) or not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise InputError(f'{where}: {shorten(dtype)} is no dtype of torch')


def _check_places(places: dict, where: str) -> None:
    """Checks where the tensors of a network that is no InternViT are in its file."""
    for name, place in places.items():
        source, part, count = place if isinstance(place, (list, tuple)) and len(place) == 3 else (
            None, 0, 0)
        if not isinstance(name, str) or not isinstance(source, str) or not all(
                type(number) is int for number in (part, count)) or not 0 <= part < count < 1000:
            raise InputError(f'{where}.places: {shorten(name)} is at {shorten(place)}: expected '
                             'the name of a tensor, and which of how many parts of it')


def _check_tokens(tokens: int, where: str) -> None:
    """Checks the number of tokens of a position embedding: a class token and a square grid."""
    if not 1 < tokens < 10**6 or round((tokens - 1) ** 0.5) ** 2 != tokens - 1:
        raise InputError(f'{where}.pos_embed_tokens is {tokens}: expected 1 and a square number')


def _check_changes(record: dict, where: str) -> None:
    """Checks what of a file is left out or resampled: see :mod:`.changes`."""
    patch, names = record.get('patch_size'), record.get('left_out')
    if patch is not None and not (type(patch) is int and 0 < patch < 1000):
        raise InputError(f'{where}.patch_size is {shorten(patch)}: expected a number of pixels')
    if names is not None and not (isinstance(names, list)
                                  and all(isinstance(name, str) for name in names)):
        raise InputError(f'{where}.left_out is {shorten(names)}: expected a list of names')


def _check_kinds(meta: dict, kinds: Mapping, path: str) -> None:
    for name, kind in kinds.items():
        value = meta.get(name)
        wrong = value is not None and not isinstance(value, kind) or isinstance(value, bool)
        if wrong or kind is int and value is not None and value < 0:
            raise InputError(f'{path}: meta.{name} is {shorten(value)}: expected {_named(kind)}')


def _check_tensor(tensor: Tensor, path: str, file_bytes: int) -> None:
    if tensor.layout != torch.strided or tensor.device.type != 'cpu':
        raise InputError(f'{path}: a tensor of shape {tuple(tensor.shape)} is '
                         f'{str(tensor.layout).removeprefix("torch.")} on the device '
                         f'{tensor.device.type!r}: expected dense tensors')
    if tensor.nbytes > file_bytes:
        raise InputError(f'{path} was refused: a tensor of shape {tuple(tensor.shape)} in '
                         f'{file_bytes} bytes')


def _check_one_optimizer(state: object, where: str) -> None:
    if not isinstance(state, dict):
        raise InputError(f'{where} is a {type(state).__name__}: expected a state dict')
    groups, values = state.get('param_groups'), state.get('state')
    if not isinstance(groups, list) or not all(
            isinstance(group, dict) and isinstance(group.get('params'), list)
            and all(type(number) is int for number in group['params'])
            and isinstance(group.get('param_names', []), list) for group in groups):
        raise InputError(f'{where}.param_groups is not a list of groups with numbers of parameters')
    numbers = [number for group in groups for number in group['params']]
    if len(set(numbers)) != len(numbers):
        raise InputError(f'{where}.param_groups holds a parameter twice')
    if not isinstance(values, dict) or not all(
            isinstance(own, dict) and all(isinstance(name, str) for name in own)
            for own in values.values()):
        raise InputError(f'{where}.state does not hold a dict of values for each parameter')
    unknown = [number for number in values if type(number) is not int]
    unknown = unknown or sorted(set(values).difference(numbers))
    if unknown:
        raise InputError(f'{where}.state has values for {shorten(unknown[0])}, which is no '
                         'parameter of its groups')


def _are_colours(palette: Any) -> bool:
    try:
        return len(palette) == 0 or np.asarray(palette).shape[1:] == (3,)
    except (TypeError, ValueError):  # rows of different lengths
        return False


def _named(kind: type | tuple[type, ...]) -> str:
    names = {int: 'a number of 0 or more', str: 'text', dict: 'a dict'}
    return names[kind] if isinstance(kind, type) else 'a list'
