"""Checkpoints that every process writes its share of (torch.distributed.checkpoint).

    iter_2000.dcp/
        .metadata                     which part of which tensor is where
        __0_0.distcp, __1_0.distcp    one file a process
        meta.pth                      meta, the optimizer's groups and its plain values
    latest.pth                        -> iter_2000.dcp
    iter_3000.dcp.part/               only while it is written, or after a kill

The tensors are ``state_dict.NAME`` and ``optimizer.INDEX.NAME``, INDEX as in the optimizer's own
state dict. Any number of processes reads them, with or without FSDP2, and so does one alone.
"""
import os
import pickle
import shutil
import warnings
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from ..errors import InputError
from ..files import PART, SaveError, as_save_error, flush
from .dcp_metadata import HEADER, SUFFIX, check_whole, read_header, read_metadata
from .lazy import LazyStateDict, LazyTensor
from .load import check_fit, resample
from .metadata import plain, trained_state_dict
from .work_dir import point_latest_to

MODEL, OPTIMIZER = 'state_dict.', 'optimizer.'


def save_sharded(model: nn.Module, folder: str, optimizer: Optimizer | None = None,
                 meta: dict | None = None, *, link_latest: bool = False) -> None:
    """Saves a segmentor whose tensors are sharded; all processes call it.

    Args:
        model: The segmentor, unwrapped.
        folder: To write, named ``*.dcp``.
        optimizer: Whose state goes with it.
        meta: Plain values; numpy numbers in it become Python's.
        link_latest: Also point ``latest.pth`` beside it to the folder.

    Raises:
        SaveError: On every process, if one could not write; what was there before is unchanged.
    """
    part = folder + PART
    state_dict, entry = trained_state_dict(model)
    tensors = {MODEL + name: tensor.detach() for name, tensor in state_dict.items()}
    state, header = _split(optimizer)
    tensors.update(state)
    header['meta'] = plain({**(meta or {}), **({'backbone': entry} if entry else {})})

    def begin() -> None:
        shutil.rmtree(part, ignore_errors=True)
        os.makedirs(part)
        torch.save(header, os.path.join(part, HEADER))
        flush(os.path.join(part, HEADER))

    def end() -> None:
        if os.path.exists(folder):
            old = folder.removesuffix(SUFFIX) + '.old' + SUFFIX + PART  # swept after a kill
            os.rename(folder, old)
            os.rename(part, folder)
            shutil.rmtree(old)
        else:
            os.rename(part, folder)
        flush(os.path.dirname(os.path.abspath(folder)))
        if link_latest:
            point_latest_to(folder)

    try:
        _on_first_rank(begin, folder)
        try:
            dcp.save(tensors, storage_writer=dcp.FileSystemWriter(part, sync_files=True))
        except CheckpointException as error:
            first = next(iter(error.failures.values()))[0]
            raise as_save_error(first, folder) from error
        _on_first_rank(end, folder)
    except SaveError:
        if _rank() == 0:
            shutil.rmtree(part, ignore_errors=True)
        raise






def open_sharded(folder: str, optimizer: bool = False) -> dict:
    """Describes a checkpoint in the form of a classic one; no tensor is read.

    Args:
        folder: The checkpoint.
        optimizer: Also its state, as :class:`.export.LazyTensor`.

    Returns:
        ``meta``, ``state_dict`` on the meta device (:class:`ShardedStateDict` reads it), and
        ``optimizer`` if it was asked for and is there.

    Raises:
        InputError: If a part is missing or damaged.
    """
    network = ShardedStateDict(folder)
    header = read_header(folder)
    content = dict(meta=header['meta'], state_dict={
        name: parts[0] for name, parts in network.parts.items()})
    if optimizer and 'param_groups' in header:
        content['optimizer'] = _join(network.lazy_optimizer(), header)
    return content


class ShardedStateDict(LazyStateDict):
    """The weights in a folder, read whole, one when it is asked for, on this process alone.

    Args:
        folder: The checkpoint.

    Raises:
        InputError: If a part is missing or damaged.
    """

    def __init__(self, folder: str):
        metadata = check_whole(folder)
        self._entries = metadata.state_dict_metadata
        self._reader = _Reader(folder, metadata)
        super().__init__(folder, {
            name.removeprefix(MODEL): (torch.empty(entry.size, dtype=entry.properties.dtype,
                                                   device='meta'),)
            for name, entry in self._entries.items() if name.startswith(MODEL)}, set())

    def tensor(self, name: str) -> Tensor:
        """Reads a tensor; those that were added from another file are as they are."""
        if not self.parts[name][0].is_meta:
            return super().tensor(name)
        return self._read(MODEL + name)

    def lazy_optimizer(self) -> dict[str, LazyTensor]:
        """The tensors of the optimizer's state by their names in the folder."""
        return {name: LazyTensor(tuple(entry.size), entry.properties.dtype,
                                 partial(self._read, name))
                for name, entry in self._entries.items() if name.startswith(OPTIMIZER)}

    def _read(self, name: str) -> Tensor:
        entry = self._entries[name]
        tensor = torch.empty(entry.size, dtype=entry.properties.dtype)
        _load({name: tensor}, self.path, self._reader)
        return tensor


def load_shares(model: nn.Module, folder: str, *, check_finite: bool = False) -> dict:
    """Fills a sharded segmentor, each process its share; none ever holds all weights.

    Args:
        model: The segmentor, unwrapped, with shards that have memory.
        folder: A checkpoint that holds every weight.
        check_finite: Also refuse NaN and infinity.

    Returns:
        ``meta`` of the checkpoint, as a dict with that key.

    Raises:
        InputError: If a part is missing or damaged, or names or shapes do not fit.
    """
    folder = getattr(folder, 'path', folder)
    network = ShardedStateDict(folder)
    targets = model.state_dict()
    check_fit(network, targets, lambda name: name.endswith('num_batches_tracked'))
    same = {MODEL + name: targets[name] for name in network.parts
            if targets[name].shape == network.shape(name)}
    _load(same, folder)
    for name in network.parts:
        if MODEL + name not in same:  # a position embedding of another grid
            whole = resample(network.tensor(name), targets[name].shape[1])
            targets[name].copy_(_share(whole.to(targets[name].device), targets[name]))
    for name, target in targets.items():
        if name not in network.parts:
            target.zero_()
        local = target.to_local() if isinstance(target, DTensor) else target
        if check_finite and not local.isfinite().all():
            raise InputError(f'{folder}: {name} holds NaN or infinity: the file is damaged, or its '
                             'training diverged')
    return dict(meta=read_header(folder)['meta'])


def load_optimizer(optimizer: Optimizer, folder: str) -> None:
    """Loads the optimizer's state from a checkpoint, each process its share.

    The parameters may be sharded or not, over any number of processes.

    Raises:
        InputError: If the optimizer has other parameters, or a part is missing.
    """
    metadata = check_whole(folder)
    header = read_header(folder)
    parameters = _parameters(optimizer)
    _check_groups(optimizer, header.get('param_groups'), folder)
    tensors = {}
    for name, entry in metadata.state_dict_metadata.items():
        if name.startswith(OPTIMIZER):
            parameter = parameters[int(name.split('.')[1])]
            tensors[name] = _place_for(parameter, name, entry, folder)
    _load(tensors, folder)
    optimizer.load_state_dict(_join(tensors, header))


def load_whole_optimizer(optimizer: Optimizer, state_dict: dict, path: str) -> None:
    """Loads the optimizer's state of a classic checkpoint; sharded parameters take their share.

    Raises:
        InputError: If the optimizer has other parameters.
    """
    _check_groups(optimizer, state_dict['param_groups'], path)
    parameters = _parameters(optimizer)
    state = {}
    for index, values in state_dict['state'].items():
        parameter = parameters[index]
        state[index] = {name: _share(value, parameter) for name, value in values.items()}
    optimizer.load_state_dict({**state_dict, 'state': state})




class _Reader(dcp.FileSystemReader):
    """torch's reader, which would unpickle its metadata freely."""

    def __init__(self, folder: str, metadata: Metadata | None = None):
        super().__init__(folder)
        self._metadata = metadata

    def read_metadata(self, *args, **kwargs) -> Metadata:
        """The metadata, read without running anything in it."""
        return self._metadata or read_metadata(str(self.path))






def _load(tensors: dict[str, Tensor], folder: str, reader: _Reader | None = None) -> None:
    """Fills tensors; no process waits for another, so that one's error cannot hang the others."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='torch.distributed is disabled')
            dcp.load(tensors, storage_reader=reader or _Reader(folder), no_dist=True)
    except (CheckpointException, RuntimeError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f'{folder} is damaged: {reason}') from error


def _split(optimizer: Optimizer | None) -> tuple[dict[str, Tensor], dict]:
    """(tensors of the optimizer's state, the rest of it)."""
    if optimizer is None:
        return {}, {}
    if isinstance(optimizer, dict):
        raise InputError('several optimizers do not go with the engine fsdp2: use one, or ddp')
    content = optimizer.state_dict()
    tensors, rest = {}, {}
    for index, values in content['state'].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f'{OPTIMIZER}{index}.{name}'] = value
            else:
                rest.setdefault(index, {})[name] = value
    return tensors, dict(param_groups=plain(content['param_groups']), state=plain(rest))


def _join(tensors: dict[str, Tensor], header: dict) -> dict:
    """The optimizer's state dict from what :func:`_split` made of it."""
    state = {index: dict(values) for index, values in header['state'].items()}
    for full, tensor in tensors.items():
        if full.startswith(OPTIMIZER):
            _, index, name = full.split('.', 2)
            state.setdefault(int(index), {})[name] = tensor
    return dict(state=state, param_groups=header['param_groups'])


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group['params']]


def _check_groups(optimizer: Optimizer, groups: list[dict] | None, path: str) -> None:
    if groups is None:
        raise InputError(f'{path} holds no state of an optimizer: give it as --load-from')
    saved = [len(group['params']) for group in groups]
    here = [len(group['params']) for group in optimizer.param_groups]
    if saved != here:
        raise InputError(f'{path}: its optimizer has {sum(saved)} parameters in {len(saved)} '
                         f'groups, the one of this config {sum(here)} in {len(here)}: go on with '
                         'the config it was trained with, or give it as --load-from')


def _place_for(parameter: Tensor, name: str, entry: TensorStorageMetadata,
               folder: str) -> Tensor:
    """A tensor like a parameter (a share of it, if that is sharded) for a value of its state."""
    dtype = entry.properties.dtype
    if tuple(entry.size) == tuple(parameter.shape):
        return torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
    if len(entry.size) == parameter.ndim > 0:
        raise InputError(f'{folder}: {name} has shape {tuple(entry.size)}, the parameter '
                         f'{tuple(parameter.shape)}: go on with the config it was trained with')
    return torch.empty(entry.size, dtype=dtype)


def _share(value: object, parameter: Tensor) -> object:
    if not (isinstance(parameter, DTensor) and isinstance(value, Tensor)
            and value.shape == parameter.shape):
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements,
                             src_data_rank=None)  # every process has read the same file


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _on_first_rank(action: Callable[[], None], folder: str) -> None:
    """Runs an action on rank 0; its failure is raised on all ranks."""
    failure: list[SaveError | None] = [None]
    if _rank() == 0:
        try:
            action()
        except SaveError as error:
            failure = [error]
        except (OSError, RuntimeError) as error:
            failure = [as_save_error(error, folder)]
    if dist.is_initialized():
        dist.broadcast_object_list(failure, src=0)
    if failure[0] is not None:
        raise failure[0]
