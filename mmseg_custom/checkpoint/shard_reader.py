"""Reads the folder of a sharded checkpoint, without running anything that is in it."""
import io
import itertools
import os
import pickle
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Collection
from functools import partial
from math import prod

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    Metadata,
    MetadataIndex,
    TensorStorageMetadata,
)

from ..errors import InputError
from .archive import Archive, DamagedFile
from .content import check_optimizer
from .files import safe_load
from .integrity import check_sums
from .lazy import LazyStateDict, LazyTensor
from .pickles import check_pickle

SUFFIX = '.dcp'
OLDEST_TORCH = '2.8'
HEADER, METADATA = 'meta.pth', '.metadata'
METADATA_SUM = 'crc32 of .metadata'  # key in the header
MODEL, OPTIMIZER = 'state_dict.', 'optimizer.'  # beginnings of the names in a folder
_METADATA_TYPES = {
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


def require_sharding(what: str) -> None:
    """Checks that PyTorch is new enough for sharded training and its checkpoints.

    Before 2.8, FSDP2 and torch.distributed.checkpoint lack options that are used here.

    Args:
        what: What needs it, for the message.

    Raises:
        InputError: If it is not.
    """
    if torch.__version__ < OLDEST_TORCH:
        raise InputError(f'{what} needs PyTorch {OLDEST_TORCH} or newer, this is '
                         f'{torch.__version__}: pip install -U torch torchvision')


def is_sharded_checkpoint(path: str) -> bool:
    """Whether a path is a folder of this kind, whole or not."""
    return os.path.isdir(path) and (os.path.realpath(path).endswith(SUFFIX)
                                    or os.path.exists(os.path.join(path, METADATA)))


class ShardReader(dcp.FileSystemReader):
    """Reads tensors from the folder of a sharded checkpoint, on this process alone.

    Args:
        folder: Folder of the checkpoint.

    Attributes:
        metadata: Location of each part of each tensor.
        header: Metadata of the checkpoint, and the optimizer's groups.
        weights: The weights, whole, by their names in the model.

    Raises:
        InputError: If a file in it is missing or damaged, or PyTorch is too old.
    """

    def __init__(self, folder: str):
        require_sharding(folder)
        super().__init__(folder)
        self.metadata, self.header = check_whole(folder)
        parts = self.metadata.storage_data.values()
        check_sums(folder, sum(part.length for part in parts), partial(_check_parts, folder, parts))
        self.weights = LazyStateDict(folder, self._lazy_tensors(MODEL))

    def read_metadata(self, *args, **kwargs) -> Metadata:
        """Returns what is in the folder; torch's own method would unpickle it freely."""
        return self.metadata

    def load_into(self, tensors: dict[str, Tensor]) -> None:
        """Fills tensors; no process waits for another, so that one's error cannot hang the others.

        Args:
            tensors: Tensors, whole or sharded, by their names in the folder.

        Raises:
            InputError: If a file is damaged.
        """
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings('ignore', message='torch.distributed is disabled')
                dcp.load(tensors, storage_reader=self, no_dist=True)
        except (CheckpointException, RuntimeError, OSError, pickle.UnpicklingError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f'{self.path} is damaged: {reason}') from error

    def optimizer(self) -> dict | None:
        """Returns the optimizer's state dict with lazy tensors, None if it was not saved."""
        if 'param_groups' not in self.header:
            return None
        check_optimizer(self.header, os.path.join(str(self.path), HEADER))
        state = {index: dict(values) for index, values in self.header['state'].items()}
        for name, tensor in self._lazy_tensors(OPTIMIZER).items():
            index, _, key = name.partition('.')
            if not re.fullmatch('[0-9]{1,9}', index):
                raise InputError(f'{self.path}: {OPTIMIZER}{name} is no state of a parameter')
            state.setdefault(int(index), {})[key] = tensor
        return dict(state=state, param_groups=self.header['param_groups'])

    def _lazy_tensors(self, prefix: str) -> dict[str, LazyTensor]:
        """Returns the tensors whose names begin with a prefix, by the rest of their names."""
        return {name.removeprefix(prefix): LazyTensor(
            tuple(entry.size), entry.properties.dtype, partial(self._read, name, entry))
            for name, entry in self.metadata.state_dict_metadata.items()
            if name.startswith(prefix) and isinstance(entry, TensorStorageMetadata)}

    def _read(self, name: str, entry: TensorStorageMetadata) -> Tensor:
        tensor = torch.empty(entry.size, dtype=entry.properties.dtype)
        self.load_into({name: tensor})
        return tensor


def check_whole(folder: str) -> tuple[Metadata, dict]:
    """Reads which files there must be, and looks whether they are.

    Returns:
        (location of each part of each tensor, content of the header).

    Raises:
        InputError: Naming the file that is missing, cut short or damaged.
    """
    for name, why in ((METADATA, 'it is no checkpoint, or was not written to its end'),
                      (HEADER, 'copy the whole folder')):
        if not os.path.exists(os.path.join(folder, name)):
            raise InputError(f'{folder} lacks {name}: {why}')
    header, _ = safe_load(os.path.join(folder, HEADER))
    _check_header(folder, header)
    metadata = read_metadata(folder)
    ends: dict[str, int] = {}
    for place in metadata.storage_data.values():
        end = place.offset + place.length
        ends[place.relative_path] = max(ends.get(place.relative_path, 0), end)
    for name, end in ends.items():
        path = os.path.join(folder, name)
        if os.path.basename(name) != name or not os.path.exists(path):
            raise InputError(f'{folder} lacks {name}, one of its {len(ends)} shards: copy the '
                             'whole folder, or resume from an earlier one')
        if os.path.getsize(path) < end:
            raise InputError(f'{path} is cut short ({os.path.getsize(path)} of {end} bytes): copy '
                             'it again, or resume from an earlier one')
    _check_sizes(metadata, os.path.join(folder, METADATA), sum(ends.values()))
    return metadata, header


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if name not in _METADATA_TYPES.get(module, ()):
            raise pickle.UnpicklingError(f'it asks for {module}.{name}')
        return super().find_class(module, name)


def read_metadata(folder: str) -> Metadata:
    """Reads which tensor is where, and refuses what would run code.

    Raises:
        InputError: If it is damaged, or asks for anything but tensors.
    """
    path = os.path.join(folder, METADATA)
    try:
        with open(path, 'rb') as file:
            data = file.read()
        check_pickle(data)
        metadata = _MetadataUnpickler(io.BytesIO(data)).load()
        _check_kinds(metadata)
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror}') from error
    except Exception as error:  # classes are built of whatever the file says: it is its fault
        raise InputError(f'{path} was refused or is damaged: {error}') from error
    return metadata


def sum_of_metadata(folder: str) -> str:
    """Returns the CRC-32 of a folder's ``.metadata``, which its header keeps."""
    with open(os.path.join(folder, METADATA), 'rb') as file:
        return f'{zlib.crc32(file.read()):08x}'


def _check_header(folder: str, header: dict) -> None:
    """Compares ``.metadata`` with its sum in the header; earlier folders have none.

    Raises:
        InputError: If it is another one.
    """
    wanted, found = header.get(METADATA_SUM), sum_of_metadata(folder)
    if wanted is not None and wanted != found:
        raise InputError(f'{os.path.join(folder, METADATA)} is damaged: its CRC-32 is {found}, '
                         f'and was {wanted!s:.8} when it was written: copy it again, or resume '
                         'from an earlier one')


def _check_kinds(metadata: object) -> None:
    """Refuses metadata of anything but tensors, with values of other types than torch's own."""
    def expect(right: bool, what: str) -> None:
        if not right:
            raise pickle.UnpicklingError(f'it does not describe tensors alone ({what})')

    def sizes(*values: object) -> bool:
        return all(isinstance(value, (tuple, list)) and all(
            type(size) is int and size >= 0 for size in value) for value in values)

    expect(isinstance(metadata, Metadata), 'no Metadata')
    assert isinstance(metadata, Metadata)
    for name, entry in metadata.state_dict_metadata.items():
        expect(isinstance(name, str) and name.isprintable(), 'a name')
        expect(isinstance(entry, TensorStorageMetadata), name)
        expect(isinstance(entry.properties.dtype, torch.dtype) and sizes(entry.size), name)
        for chunk in entry.chunks:
            expect(sizes(chunk.offsets, chunk.sizes), name)
            expect(len(chunk.offsets) == len(chunk.sizes) == len(entry.size) and all(
                offset + size <= whole for offset, size, whole
                in zip(chunk.offsets, chunk.sizes, entry.size)), name)
        expect(sum(prod(chunk.sizes) for chunk in entry.chunks) == prod(entry.size), name)
    for index, part in metadata.storage_data.items():
        expect(isinstance(index, MetadataIndex), 'an index')
        expect(index.fqn in metadata.state_dict_metadata, str(index.fqn)[:80])
        expect(sizes((part.offset, part.length)) and isinstance(part.relative_path, str)
               and not getattr(part, 'transform_descriptors', None), index.fqn)


def _check_sizes(metadata: Metadata, path: str, nbytes: int) -> None:
    """Refuses tensors that are larger than their parts in the files."""
    lengths: Counter[str] = Counter()
    for index, part in metadata.storage_data.items():
        lengths[index.fqn] += part.length
    for name, entry in metadata.state_dict_metadata.items():
        size = prod(entry.size) * entry.properties.dtype.itemsize
        if size > min(lengths[name], nbytes):
            raise InputError(f'{path} was refused: {name} of shape {tuple(entry.size)} in '
                             f'{lengths[name]} bytes')


def _check_parts(folder: str, parts: Collection[_StorageInfo]) -> None:
    """Checks the sums of all parts of tensors, file by file; each is a zip of torch.save."""
    for name, own in itertools.groupby(sorted(
            parts, key=lambda part: (part.relative_path, part.offset)),
            key=lambda part: part.relative_path):
        with open(os.path.join(folder, name), 'rb') as file:
            for part in own:
                try:
                    Archive(file, part.offset, part.length).check()
                except DamagedFile as error:
                    raise DamagedFile(f'is damaged: {name}, from byte {part.offset} on, '
                                      f'{error}') from error
