"""A segmentor's checkpoint: opened once, and handed on.

    classic   {meta, state_dict, optimizer}: all tensors, in mmcv's form, which the original reads
    small     the same, without the tensors of a frozen backbone, which ``meta['backbone']`` refers
              to (see :mod:`.provenance`)

either in one file, or sharded: a folder that all processes of a run wrote (see :mod:`.sharded`).
"""
import os
import pickle
import warnings
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata

from ..errors import InputError
from .dcp_metadata import HEADER, check_whole, is_sharded_checkpoint
from .files import WRAPPERS, find_weights, read_content, safe_load
from .keys import BACKBONE, DIALECTS, summarize
from .lazy import LazyStateDict, LazyTensor

MODEL, OPTIMIZER = 'state_dict.', 'optimizer.'  # what the names in a folder begin with


class ShardReader(dcp.FileSystemReader):
    """Reads tensors from the folder of a sharded checkpoint, on this process alone.

    Args:
        folder: Folder of the checkpoint.

    Raises:
        InputError: If a file in it is missing or damaged.
    """

    def __init__(self, folder: str):
        super().__init__(folder)
        self.metadata = check_whole(folder)

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

    def lazy_tensors(self, prefix: str) -> dict[str, LazyTensor]:
        """Returns the tensors whose names begin with a prefix, by the rest of their names."""
        return {name.removeprefix(prefix): LazyTensor(
            tuple(entry.size), entry.properties.dtype, partial(self._read, name))
            for name, entry in self.metadata.state_dict_metadata.items()
            if name.startswith(prefix)}

    def _read(self, name: str) -> Tensor:
        entry = self.metadata.state_dict_metadata[name]
        tensor = torch.empty(entry.size, dtype=entry.properties.dtype)
        self.load_into({name: tensor})
        return tensor


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint of a segmentor; no tensor is read yet.

    Attributes:
        path: File, or folder of a sharded checkpoint.
        meta: What it says about its run; empty for a file of another program.
        weights: Its own tensors, without the prefix of a data-parallel wrapper.
        optimizer: State dict of the optimizer, if it has one; lazy tensors if it is sharded.
        others: What else the file holds, by its keys.
        reader: Reader of a sharded checkpoint's folder, None for a file.
    """
    path: str
    meta: dict
    weights: LazyStateDict
    optimizer: dict | None = None
    others: dict = field(default_factory=dict)
    reader: ShardReader | None = None

    @property
    def is_sharded(self) -> bool:
        """Whether it is a folder that all processes of a run wrote."""
        return self.reader is not None

    @property
    def backbone_record(self) -> dict | None:
        """``meta['backbone']`` of a small checkpoint, None for a classic one."""
        return backbone_record_of(self.meta)

    @property
    def holds_backbone(self) -> bool:
        """Whether it is a classic checkpoint, which needs no file of a backbone."""
        return self.backbone_record is None

    @classmethod
    def of(cls, path: str, content: object, mapped: bool) -> 'Checkpoint':
        """Finds the parts of a checkpoint in the content of a file.

        Args:
            path: Name of the file.
            content: Content of the file.
            mapped: Whether its tensors are views of the mapped file.

        Raises:
            InputError: If it is no checkpoint of a segmentor.
        """
        weights = find_weights(content, mapped, path)
        if all(name.startswith('module.') for name in weights):
            weights = LazyStateDict(path, {name.removeprefix('module.'): tensor
                                           for name, tensor in weights.items()})
        _check_names(weights)
        if not any(isinstance(content.get(name), dict) for name in WRAPPERS):
            content = {}  # it is the state dict itself
        meta = content.get('meta')
        others = {name: value for name, value in content.items()
                  if name not in ('meta', 'optimizer', *WRAPPERS)}
        return cls(path, meta if isinstance(meta, dict) else {}, weights,
                   content.get('optimizer'), others)

    @classmethod
    def of_folder(cls, path: str) -> 'Checkpoint':
        """Opens the folder of a sharded checkpoint.

        Raises:
            InputError: If a file in it is missing or damaged.
        """
        reader = ShardReader(path)
        header = safe_load(os.path.join(path, HEADER))
        weights = LazyStateDict(path, reader.lazy_tensors(MODEL))
        _check_names(weights)
        optimizer = None
        if 'param_groups' in header:
            state = {index: dict(values) for index, values in header['state'].items()}
            for name, tensor in reader.lazy_tensors(OPTIMIZER).items():
                index, _, key = name.partition('.')
                state.setdefault(int(index), {})[key] = tensor
            optimizer = dict(state=state, param_groups=header['param_groups'])
        return cls(path, header['meta'], weights, optimizer, reader=reader)


def open_checkpoint(path: str) -> Checkpoint:
    """Opens a checkpoint: a file, or the folder of a sharded one.

    Nothing that is in it is run, and no tensor is read.

    Raises:
        InputError: If it cannot be read, or is no checkpoint of a segmentor.
    """
    if is_sharded_checkpoint(path):
        return Checkpoint.of_folder(path)
    return Checkpoint.of(path, *read_content(path))


def backbone_record_of(meta: object) -> dict | None:
    """Finds the record of the backbone's file in a checkpoint's metadata; None if it has none."""
    record = meta.get('backbone') if isinstance(meta, dict) else None
    return record if isinstance(record, dict) and 'sha256' in record else None


def _check_names(weights: LazyStateDict) -> None:
    """Refuses weights that are not a segmentor's."""
    if any(name.startswith(('decode_head.', BACKBONE)) for name in weights):
        return
    way_out = ('give it as model.backbone.pretrained'
               if any(dialect.anchor in weights for dialect in DIALECTS)
               else 'give the checkpoint of a segmentor')
    raise InputError(f'{weights.path} is no checkpoint of a segmentor (it holds '
                     f'{summarize(weights)}): {way_out}')
