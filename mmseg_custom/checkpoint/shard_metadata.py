"""Which part of which tensor is where in a sharded checkpoint: its ``.metadata``, read safely.

It is a pickle of torch's own classes. No others are built, its bounds are checked before, its
checksum is compared with the one in the folder's header, and its content is checked afterwards.
"""
import io
import os
import pickle
import zlib
from collections import Counter
from math import prod

import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorStorageMetadata,
)

from ..errors import InputError
from ..schema import shorten
from .integrity import damaged_line
from .pickles import check_pickle

METADATA = '.metadata'
METADATA_SUM = 'crc32 of .metadata'  # key in the header
_TYPES = {
    'torch.distributed.checkpoint.metadata': {
        'Metadata', 'MetadataIndex', 'TensorStorageMetadata', 'ChunkStorageMetadata',
        'TensorProperties', 'StorageMeta', '_MEM_FORMAT_ENCODING'},
    'torch.distributed.checkpoint.filesystem': {'_StorageInfo'},
    'torch.serialization': {'_get_layout'},
    'pathlib': {'PosixPath', 'WindowsPath'},
    'pathlib._local': {'PosixPath', 'WindowsPath'},  # from Python 3.13 on
    'torch': {'Size', 'bfloat16', 'float16', 'float32', 'float64', 'int64', 'int32', 'uint8',
              'bool'},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if name not in _TYPES.get(module, ()):
            raise pickle.UnpicklingError(f'it asks for {module}.{name}')
        return super().find_class(module, name)


def read_metadata(folder: str, header: dict) -> Metadata:
    """Reads where each tensor is stored; refuses content that would run code or exhaust the memory.

    Args:
        folder: Folder of the checkpoint.
        header: Content of its header, with the checksum of the metadata; earlier ones have none.

    Raises:
        InputError: If it is damaged, or describes anything but tensors.
    """
    path = os.path.join(folder, METADATA)
    try:
        with open(path, 'rb') as file:
            data = file.read()
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror}') from error
    wanted, found = header.get(METADATA_SUM), _sum(data)
    if wanted is not None and wanted != found:
        raise InputError(damaged_line(path, f'is damaged: its CRC-32 is {found}, and was '
                                      f'{wanted!s:.8} when it was written'))
    try:
        check_pickle(data)
        metadata = _Unpickler(io.BytesIO(data)).load()
        if not isinstance(metadata, Metadata):
            raise ValueError('it is no Metadata')
        for name, entry in metadata.state_dict_metadata.items():
            _check_tensor(name, entry)
        for index, part in metadata.storage_data.items():
            _check_part(metadata, index, part)
    except Exception as error:  # objects are built from the file, so any error is its fault
        raise InputError(f'{path} was refused or is damaged: {error}') from error
    return metadata


def sum_of_metadata(folder: str) -> str:
    """Returns the CRC-32 of a folder's metadata, which its header keeps."""
    with open(os.path.join(folder, METADATA), 'rb') as file:
        return _sum(file.read())


def check_sizes(metadata: Metadata, path: str, nbytes: int) -> None:
    """Refuses tensors that are larger than their parts in the files.

    Args:
        metadata: What the folder holds.
        path: Name of its file.
        nbytes: Bytes of all files.

    Raises:
        InputError: Naming the first such tensor.
    """
    lengths: Counter[str] = Counter()
    for index, part in metadata.storage_data.items():
        lengths[index.fqn] += part.length
    for name, entry in metadata.state_dict_metadata.items():
        assert isinstance(entry, TensorStorageMetadata)
        size = prod(entry.size) * entry.properties.dtype.itemsize
        if size > min(lengths[name], nbytes):
            raise InputError(f'{path} was refused: {name} of shape {tuple(entry.size)} in '
                             f'{lengths[name]} bytes')


def _sum(data: bytes) -> str:
    return f'{zlib.crc32(data):08x}'


def _check_tensor(name: object, entry: object) -> None:
    """Refuses entries that are no tensors, and tensors that their parts do not add up to."""
    if not isinstance(name, str) or not name.isprintable() or not isinstance(
            entry, TensorStorageMetadata):
        raise ValueError(f'it does not describe tensors alone ({shorten(name)})')
    if not isinstance(entry.properties.dtype, torch.dtype) or not _are_sizes(entry.size) or not all(
            _is_within(chunk, entry.size) for chunk in entry.chunks) or (
            sum(prod(chunk.sizes) for chunk in entry.chunks) != prod(entry.size)):
        raise ValueError(f'the parts of {name} do not make it up')


def _check_part(metadata: Metadata, index: object, part: object) -> None:
    """Refuses a part that belongs to no tensor, or has no valid position in a file."""
    if not isinstance(index, MetadataIndex) or index.fqn not in metadata.state_dict_metadata:
        raise ValueError('it has a part of no tensor')
    place = getattr(part, 'offset', None), getattr(part, 'length', None)
    if not _are_sizes(place) or not isinstance(getattr(part, 'relative_path', None), str) or (
            getattr(part, 'transform_descriptors', None)):
        raise ValueError(f'a part of {index.fqn} is at no place in a file')


def _is_within(chunk: object, whole: torch.Size) -> bool:
    return isinstance(chunk, ChunkStorageMetadata) and _are_sizes(chunk.offsets) and _are_sizes(
        chunk.sizes) and len(chunk.offsets) == len(chunk.sizes) == len(whole) and all(
        offset + size <= most for offset, size, most in zip(chunk.offsets, chunk.sizes, whole))


def _are_sizes(values: object) -> bool:
    return isinstance(values, (tuple, list)) and all(
        type(value) is int and value >= 0 for value in values)
