"""Reads the folder of a sharded checkpoint, without running anything that is in it."""
import itertools
import os
import pickle
import re
import warnings
from collections.abc import Collection
from functools import partial

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from ..errors import InputError
from .archive import Archive, DamagedFile
from .content import check_optimizer
from .files import safe_load
from .integrity import check_sums
from .lazy import LazyStateDict, LazyTensor
from .shard_metadata import METADATA, check_sizes, read_metadata

SUFFIX = '.dcp'
OLDEST_TORCH = '2.8'
HEADER = 'meta.pth'
MODEL, OPTIMIZER = 'state_dict.', 'optimizer.'  # beginnings of the names in a folder


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
        """Returns the optimizer's state dict with lazy tensors, None if it was not saved.

        Raises:
            InputError: If the state is not that of parameters.
        """
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
    metadata = read_metadata(folder, header)
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
    check_sizes(metadata, os.path.join(folder, METADATA), sum(ends.values()))
    return metadata, header


def _check_parts(folder: str, parts: Collection[_StorageInfo]) -> None:
    """Checks the checksums of all parts of tensors, file by file; each is a zip of torch.save."""
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
