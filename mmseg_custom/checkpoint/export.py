"""Writes weights tensor by tensor: to .pth, to safetensors, and to safetensors in shards.

A tensor is read when its turn comes and freed once it is written, so that converting takes the
memory of one tensor, not of the file. The libraries' own writers want all of them at once.
"""
import io
import json
import os
import pickle
import sys
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..files import atomic_path, atomic_write
from .integrity import SUMS
from .lazy import LazyTensor

SAFETENSORS_DTYPES = {torch.float64: 'F64', torch.int64: 'I64', torch.float32: 'F32',
                      torch.int32: 'I32', torch.bfloat16: 'BF16', torch.float16: 'F16',
                      torch.uint8: 'U8', torch.int8: 'I8', torch.bool: 'BOOL'}
Progress = Callable[[int], object]  # called after each tensor with its bytes, e.g. tqdm.update


def write_pth(path: str, content: object, progress: Progress = lambda nbytes: None) -> None:
    """Writes what ``torch.save`` would write, with lazy tensors anywhere in the content.

    Args:
        path: File to write.
        content: Dicts, lists, plain values, tensors and :class:`LazyTensor`.
        progress: Function that is called after each tensor with its bytes.

    Raises:
        SaveError: If it cannot be written; what was at the path is still there.
    """
    with atomic_path(path) as part:
        pickled = io.BytesIO()
        pickler = _Pickler(pickled, protocol=2)
        pickler.dump(content)
        # torch.save's own way in: it closes the file in order after an error, without which the
        # writer's destructor would end the process.
        with torch.serialization._open_zipfile_writer(part) as writer:
            writer.write_record('data.pkl', pickled.getvalue(), len(pickled.getvalue()))
            writer.write_record('byteorder', sys.byteorder, len(sys.byteorder))
            for key, tensor in enumerate(pickler.tensors):
                data = tensor.read_bytes()
                start = data.storage_offset()
                storage = data.untyped_storage()[start:start + tensor.nbytes]
                writer.write_record(f'data/{key}', storage, tensor.nbytes)
                del data, storage
                tensor.release()
                progress(tensor.nbytes)


def write_safetensors(path: str, tensors: Mapping[str, LazyTensor],
                      progress: Progress = lambda nbytes: None,
                      metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file.

    Args:
        path: File to write.
        tensors: Tensors by name. Wider dtypes come first in the file, which keeps each aligned,
            and then the given order. Their CRC-32 are in its ``__metadata__``.
        progress: Function that is called after each tensor with its bytes.
        metadata: More entries of ``__metadata__``.

    Raises:
        InputError: If a tensor has a dtype that is not written; nothing is written then.
        SaveError: If it cannot be written; what was at the path is still there.
    """
    names = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
    sums = dict.fromkeys(names, '0' * 8)
    header: dict[str, dict] = {'__metadata__': {**(metadata or {}), 'format': 'pt',
                                              SUMS: json.dumps(sums)}}
    offset = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in SAFETENSORS_DTYPES:
            raise InputError(f'{path}: {name} is {str(tensor.dtype).removeprefix("torch.")}, which '
                             'is not written to safetensors: give a name that ends in .pth')
        header[name] = dict(dtype=SAFETENSORS_DTYPES[tensor.dtype], shape=list(tensor.shape),
                            data_offsets=[offset, offset + tensor.nbytes])
        offset += tensor.nbytes
    with atomic_path(path) as part, open(part, 'wb') as file:
        file.write(_safetensors_header(header))
        for name in names:
            data = tensors[name].read_bytes().numpy().data
            sums[name] = f'{zlib.crc32(data):08x}'
            file.write(data)
            del data
            tensors[name].release()
            progress(tensors[name].nbytes)
        header['__metadata__'][SUMS] = json.dumps(sums)
        file.seek(0)
        file.write(_safetensors_header(header))  # of the same length


def _safetensors_header(header: dict) -> bytes:
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    return len(text).to_bytes(8, 'little') + text


def write_shards(folder: str, tensors: Mapping[str, LazyTensor], shard_bytes: int,
                 progress: Progress = lambda nbytes: None) -> None:
    """Writes model.safetensors, or shards of it with their index, as the Hugging Face hub has them.

    Args:
        folder: Folder to write into.
        tensors: Tensors by name.
        shard_bytes: Most bytes of tensors in a file.
        progress: Function that is called after each tensor with its bytes.

    Raises:
        SaveError: If it cannot be written.
    """
    shards = split_into_shards(tensors, shard_bytes)
    if len(shards) == 1:
        write_safetensors(os.path.join(folder, 'model.safetensors'), tensors, progress)
        return
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        file = f'model-{number:05d}-of-{len(shards):05d}.safetensors'
        write_safetensors(os.path.join(folder, file), {n: tensors[n] for n in names}, progress)
        weight_map.update(dict.fromkeys(names, file))
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = dict(metadata=dict(total_size=total), weight_map=weight_map)
    atomic_write(os.path.join(folder, 'model.safetensors.index.json'),
                 json.dumps(index, indent=2) + '\n')


def split_into_shards(tensors: Mapping[str, LazyTensor], shard_bytes: int) -> list[list[str]]:
    """Splits names, in order, into shards of at most ``shard_bytes`` (or of one tensor)."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        if shards[-1] and filled + tensor.nbytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += tensor.nbytes
    return shards


class _Pickler(pickle.Pickler):
    """Pickles as ``torch.save`` does: tensors by reference to numbered records of the file."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.tensors: list[LazyTensor] = []

    def persistent_id(self, obj: object) -> tuple | None:
        """Returns the reference to a record, in torch's form."""
        if not isinstance(obj, _Record):
            return None
        tensor = obj.tensor
        typed = _storage_type(tensor.dtype)
        self.tensors.append(tensor)
        return ('storage', typed or torch.UntypedStorage, str(len(self.tensors) - 1), 'cpu',
                prod(tensor.shape) if typed else tensor.nbytes)

    def reducer_override(self, obj: Any) -> Any:
        """Rebuilds tensors by the function that torch's own files name."""
        if isinstance(obj, Tensor):
            obj = LazyTensor(tuple(obj.shape), obj.dtype, obj.detach().cpu)
        if not isinstance(obj, LazyTensor):
            return NotImplemented
        strides = [prod(obj.shape[i + 1:]) for i in range(len(obj.shape))]
        arguments: tuple = (_Record(obj), 0, obj.shape, tuple(strides), False, OrderedDict())
        if _storage_type(obj.dtype):
            return torch._utils._rebuild_tensor_v2, arguments
        return torch._utils._rebuild_tensor_v3, (*arguments, obj.dtype)


def _storage_type(dtype: torch.dtype) -> type | None:
    """Returns torch's class of a storage of a dtype; newer dtypes, such as float8, have none."""
    name = torch.storage._dtype_to_storage_type_map().get(dtype)
    return getattr(torch, name) if name else None


@dataclass(frozen=True, eq=False)
class _Record:
    tensor: LazyTensor
