"""Reads what a sharded checkpoint says of itself, without running anything that is in it."""
import os
import pickle

from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from ..errors import InputError

SUFFIX = '.dcp'
HEADER, METADATA = 'meta.pth', '.metadata'
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


def is_sharded_checkpoint(path: str) -> bool:
    """Whether a path is a folder of this kind, whole or not."""
    return os.path.isdir(path) and (os.path.realpath(path).endswith(SUFFIX)
                                    or os.path.exists(os.path.join(path, METADATA)))


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
                             'whole folder, or go on from an earlier checkpoint')
        if os.path.getsize(path) < end:
            raise InputError(f'{path} is cut short ({os.path.getsize(path)} of {end} bytes): copy '
                             'it again, or go on from an earlier checkpoint')
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
