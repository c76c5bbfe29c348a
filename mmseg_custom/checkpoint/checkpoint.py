"""A segmentor's checkpoint: opened once, and handed on.

    classic   {meta, state_dict, optimizer}: all tensors, in mmcv's form, which the original reads
    small     the same, without the tensors of a frozen backbone, which ``meta['backbone']`` refers
              to (see :mod:`.provenance`)

either in one file, or sharded: a folder that all processes of a run wrote (see :mod:`.sharded`).
Of other programs, DeepSpeed's checkpoints are read (see :mod:`.deepspeed`), and folders of weights.
"""
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import InputError
from .content import check_meta, is_record
from .deepspeed import is_deepspeed, metadata_of, note_on
from .files import find_weights, read_weights, safe_load, wrapper_of
from .folders import weights_file_of
from .keys import BACKBONE, DIALECTS, summarize
from .lazy import LazyStateDict
from .shard_reader import ShardReader, is_sharded_checkpoint


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint of a segmentor; no tensor is read yet.

    Attributes:
        path: File, or folder.
        meta: Description of its run, as mmcv saves it; empty for a file of another program.
        weights: Its own tensors, without the prefix of a data-parallel wrapper.
        optimizer: State dict of the optimizer, if it has one; lazy tensors if it is sharded.
        others: Remaining entries of the file, by key.
        reader: Reader of a sharded checkpoint's folder, None for a file.
        note: Words for the log about a file of another program; '' for others.
    """
    path: str
    meta: dict
    weights: LazyStateDict
    optimizer: dict | None = None
    others: dict = field(default_factory=dict)
    reader: ShardReader | None = None
    note: str = ''

    @property
    def is_sharded(self) -> bool:
        """Whether it is a folder that all processes of a run wrote."""
        return self.reader is not None

    @property
    def is_taken(self) -> bool:
        """Whether tensors of the file are parameters of a model, which may change them."""
        return not self.weights.taken.isdisjoint(self.weights)

    @property
    def backbone_record(self) -> dict | None:
        """``meta['backbone']`` of a small checkpoint, None for a classic one."""
        return backbone_record_of(self.meta)

    @property
    def holds_backbone(self) -> bool:
        """Whether it is a classic checkpoint, which needs no file of a backbone."""
        return self.backbone_record is None

    @classmethod
    def of(cls, path: str, content: dict, mapped: bool) -> 'Checkpoint':
        """Finds the parts of a checkpoint in the content of a file.

        Args:
            path: Name of the file.
            content: Content of the file.
            mapped: Whether its tensors are views of the mapped file.

        Raises:
            InputError: If it is no checkpoint of a segmentor.
        """
        weights = _unwrapped(find_weights(content, mapped, path))
        _check_names(weights)
        if is_deepspeed(content):
            return cls(path, check_meta(metadata_of(content), path), weights,
                       note=note_on(weights))
        wrapper = wrapper_of(content)
        if wrapper is None:
            content = {}  # it is the state dict itself
        meta = check_meta(content.get('meta'), path)
        others = {name: value for name, value in content.items()
                  if name not in ('meta', 'optimizer', wrapper)}
        return cls(path, meta, weights, content.get('optimizer'), others)

    def to_dict(self, meta: dict, state_dict: Mapping) -> dict:
        """Returns the content of a file: this checkpoint's with other metadata and weights."""
        optimizer = {} if self.optimizer is None else dict(optimizer=self.optimizer)
        return {**self.others, 'meta': meta, 'state_dict': state_dict, **optimizer}


def open_checkpoint(path: str) -> Checkpoint:
    """Opens a checkpoint: a file, the folder of a sharded one, DeepSpeed's, or one of weights.

    Nothing that is in it is run, and no tensor is read.

    Raises:
        InputError: If it cannot be read, or is no checkpoint of a segmentor.
    """
    if not is_sharded_checkpoint(path):
        return _open_other(path)
    reader = ShardReader(path)
    _check_names(reader.weights)
    return Checkpoint(path, check_meta(reader.header.get('meta'), path), reader.weights,
                      reader.optimizer(), reader=reader)


def _open_other(path: str) -> Checkpoint:
    """Opens a file, or a folder of another program."""
    file = weights_file_of(path) if os.path.isdir(path) else os.fspath(path)
    if not file.endswith('.index.json'):
        return Checkpoint.of(file, *safe_load(file))
    weights = _unwrapped(read_weights(file, everything=True))
    _check_names(weights)
    return Checkpoint(file, {}, weights)


def _unwrapped(weights: LazyStateDict) -> LazyStateDict:
    """Removes the prefix of a data-parallel wrapper."""
    if not all(name.startswith('module.') for name in weights):
        return weights
    return LazyStateDict(weights.path, {name.removeprefix('module.'): tensor
                                        for name, tensor in weights.items()})


def backbone_record_of(meta: object) -> dict | None:
    """Finds the record of the backbone's file in a checkpoint's metadata; None if it has none."""
    record = meta.get('backbone') if isinstance(meta, dict) else None
    return record if isinstance(record, dict) and is_record(record) else None


def _check_names(weights: LazyStateDict) -> None:
    """Refuses weights that are not a segmentor's."""
    if any(name.startswith(('decode_head.', BACKBONE)) for name in weights):
        return
    way_out = ('give it as model.backbone.pretrained'
               if any(dialect.anchor in weights for dialect in DIALECTS)
               else 'give the checkpoint of a segmentor')
    raise InputError(f'{weights.path} is no checkpoint of a segmentor (it holds '
                     f'{summarize(weights)}): {way_out}')
