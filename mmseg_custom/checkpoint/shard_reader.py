"""Reads the folder of a sharded checkpoint, without running anything that is in it."""
import os
import pickle
import warnings
from functools import partial

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from ..errors import InputError
from .lazy import LazyStateDict, LazyTensor

SUFFIX = '.dcp'
OLDEST_TORCH = '2.8'
HEADER, METADATA = 'meta.pth', '.metadata'
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
        weights: The weights, whole, by their names in the model.

    Raises:
        InputError: If a file in it is missing or damaged, or PyTorch is too old.
    """

    def __init__(self, folder: str):
        require_sharding(folder)
        super().__init__(folder)
        self.metadata = check_whole(folder)
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

    def optimizer(self, header: dict) -> dict | None:
        """Returns the optimizer's state dict with lazy tensors, None if it was not saved.

        Args:
            header: Content of the header: the optimizer's ``param_groups`` and plain ``state``.
        """
        if 'param_groups' not in header:
            return None
        state = {index: dict(values) for index, values in header['state'].items()}
        for name, tensor in self._lazy_tensors(OPTIMIZER).items():
            index, _, key = name.partition('.')
            state.setdefault(int(index), {})[key] = tensor
        return dict(state=state, param_groups=header['param_groups'])

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


def check_whole(folder: str) -> Metadata:
    """Reads which files there must be, and looks whether they are.

    Raises:
        InputError: Naming the file that is missing or cut short.
    """
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
    if not os.path.exists(os.path.join(folder, HEADER)):
        raise InputError(f'{folder} lacks {HEADER}: copy the whole folder')
    return metadata


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if name not in _METADATA_TYPES.get(module, ()):
            raise pickle.UnpicklingError(f'it asks for {module}.{name}')
        return super().find_class(module, name)


def read_metadata(folder: str) -> Metadata:
    """Reads which tensor is where, and refuses what would run code.

    Raises:
        InputError: If it is missing, damaged, or asks for anything but tensors.
    """
    path = os.path.join(folder, METADATA)
    if not os.path.exists(path):
        raise InputError(f'{folder} lacks {METADATA}: it is no checkpoint, or was not written to '
                         'its end')
    try:
        with open(path, 'rb') as file:
            metadata = _MetadataUnpickler(file).load()
        if not isinstance(metadata, Metadata) or not all(
                isinstance(entry, TensorStorageMetadata)
                for entry in metadata.state_dict_metadata.values()):
            raise pickle.UnpicklingError('it does not describe tensors alone')
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, ValueError) as error:
        raise InputError(f'{path} was refused or is damaged: {error}') from error
    return metadata
