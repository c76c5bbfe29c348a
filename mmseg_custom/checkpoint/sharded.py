"""Checkpoints of sharded training (torch.distributed.checkpoint): each process has its shards.

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
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.api import CheckpointException
from torch.optim import Optimizer

from ..errors import InputError
from ..files import PART, SaveError, as_save_error, begin_folder, commit_folder, flush
from ..shards import own_shard
from .averages import leave_aside
from .checkpoint import Checkpoint
from .load import check_fit, refuse_nonfinite, resample
from .metadata import own_records, plain, trained_state_dict
from .optimizer import shard_like, with_names
from .recorded import compared_with
from .shard_metadata import METADATA_SUM, sum_of_metadata
from .shard_reader import HEADER, MODEL, OPTIMIZER
from .work_dir import point_latest_to

# Bytes that are copied from a GPU before they are written; torch's default. A thread copies none:
# it would do so on a stream of its own device, which is GPU 0 in the threads of all processes.
COPIED_AHEAD = 10_000_000


@dataclass(frozen=True)
class FolderSave:
    """A checkpoint whose folder all processes write together.

    Attributes:
        path: Folder to write.
        content: Tensors by their names in the folder, and the content of ``meta.pth``. The tensors
            are those of the model and of the optimizer, or copies of them.
        link_latest: Whether to point ``latest.pth`` beside it to the folder.
        by_all_ranks: Whether all ranks write it together.
    """
    path: str
    content: tuple[dict[str, Tensor], dict]
    link_latest: bool = False
    by_all_ranks = True

    def write(self, group: ProcessGroup | None = None) -> None:
        """Writes the folder; all processes call it.

        Args:
            group: Group of all processes that nothing else uses meanwhile, for a thread; tensors
                are on the CPU then. Default: the default group.

        Raises:
            SaveError: On every process, if one could not write; what was there before is unchanged.
        """
        tensors, _ = self.content
        try:
            _on_first_rank(lambda: begin_folder(self.path), self.path, group)
            try:
                writer = dcp.FileSystemWriter(
                    self.path + PART, sync_files=True,
                    per_thread_copy_ahead=COPIED_AHEAD if group is None else 0)
                dcp.save(tensors, storage_writer=writer, process_group=group)
            except CheckpointException as error:
                first = next(iter(error.failures.values()))[0]
                raise as_save_error(first, self.path) from error
            _on_first_rank(self._end, self.path, group)
        except SaveError:
            if _rank() == 0:
                shutil.rmtree(self.path + PART, ignore_errors=True)
            raise

    def _end(self) -> None:
        """Writes ``meta.pth``, and gives the folder its name."""
        header = {**self.content[1], METADATA_SUM: sum_of_metadata(self.path + PART)}
        path = os.path.join(self.path + PART, HEADER)
        torch.save(header, path)
        flush(path)
        commit_folder(self.path)
        if self.link_latest:
            point_latest_to(self.path)


def save_sharded(model: nn.Module, folder: str, optimizer: Optimizer | None = None,
                 meta: dict | None = None, *, link_latest: bool = False,
                 others: Mapping[str, Tensor] | None = None) -> None:
    """Saves a segmentor whose tensors are sharded; all processes call it.

    Args:
        model: Segmentor, unwrapped.
        folder: Folder to write, named ``*.dcp``.
        optimizer: Optimizer whose state is saved too.
        meta: Plain values; numpy numbers in it become Python's.
        link_latest: Whether to point ``latest.pth`` beside it to the folder.
        others: More tensors for the state dict, sharded or not, by name.

    Raises:
        SaveError: On every process, if one could not write; what was there before is unchanged.
    """
    prepare_sharded_save(model, folder, optimizer, meta, link_latest=link_latest,
                         others=others).write()


def prepare_sharded_save(model: nn.Module, folder: str, optimizer: Optimizer | None = None,
                         meta: dict | None = None, *, link_latest: bool = False,
                         others: Mapping[str, Tensor] | None = None) -> FolderSave:
    """Returns what :func:`save_sharded` writes; its tensors are those of the model."""
    state_dict, record = trained_state_dict(model)
    tensors = {MODEL + name: tensor.detach() for name, tensor in
               {**state_dict, **(others or {})}.items()}
    state, header = _split(optimizer, model)
    tensors.update(state)
    header['meta'] = plain({**(meta or {}), **({'backbone': record} if record else {}),
                            **own_records(model)})
    return FolderSave(folder, (tensors, header), link_latest)


def load_shards(model: nn.Module, checkpoint: Checkpoint, *, check_finite: bool = False) -> None:
    """Fills a sharded segmentor; each process reads its shards, and none ever holds all weights.

    Args:
        model: Segmentor, unwrapped, with shards that have memory.
        checkpoint: Sharded checkpoint that holds every weight.
        check_finite: Whether to refuse NaN and infinity.

    Raises:
        InputError: If a file is damaged, or names or shapes do not fit.
    """
    assert checkpoint.reader is not None
    weights, targets = checkpoint.weights.copy(), model.state_dict()
    leave_aside(weights, targets)
    with compared_with(checkpoint.meta, model):
        check_fit(weights, targets, lambda name: name.endswith('num_batches_tracked'))
    checkpoint.reader.load_into({MODEL + name: targets[name] for name, tensor in weights.items()
                                 if targets[name].shape == tensor.shape})
    for name, target in targets.items():
        if name not in weights:
            target.zero_()
        elif target.shape != weights[name].shape:  # a position embedding of another grid
            whole = resample(weights[name].read(), target.shape[1])
            target.copy_(shard_like(whole.to(target.device), target))
        if check_finite:
            refuse_nonfinite(own_shard(target), name, checkpoint.path)


def load_tensor(target: Tensor, checkpoint: Checkpoint, name: str) -> None:
    """Fills a tensor, sharded or not, from a checkpoint of either kind.

    Args:
        target: Tensor to fill, or this process's shards of it.
        checkpoint: Checkpoint that holds it.
        name: Its name in the checkpoint.

    Raises:
        InputError: If its shape is another one, or a file is damaged.
    """
    lazy = checkpoint.weights[name]
    if lazy.shape != tuple(target.shape):
        raise InputError(f'{checkpoint.path}: {name} has shape {lazy.shape}, expected '
                         f'{tuple(target.shape)}: resume with the config it was trained with')
    if checkpoint.reader is not None:
        checkpoint.reader.load_into({MODEL + name: target})
    else:
        target.copy_(cast(Tensor, shard_like(lazy.read().to(target.device), target, None)))


def _split(optimizer: Optimizer | None, model: nn.Module) -> tuple[dict[str, Tensor], dict]:
    """Splits the optimizer's state: (tensors by their names in the folder, the rest)."""
    if optimizer is None:
        return {}, {}
    if isinstance(optimizer, dict):
        raise InputError('several optimizers do not go with the engine fsdp2: use one, or ddp')
    content = with_names(optimizer.state_dict(), optimizer, model)
    tensors: dict[str, Tensor] = {}
    rest: dict[int, dict] = {}
    for index, values in content['state'].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f'{OPTIMIZER}{index}.{name}'] = value
            else:
                rest.setdefault(index, {})[name] = value
    return tensors, dict(param_groups=plain(content['param_groups']), state=plain(rest))


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _on_first_rank(action: Callable[[], object], folder: str, group: ProcessGroup | None = None
                   ) -> None:
    """Runs an action on rank 0; its failure is raised on all ranks."""
    failure: list[SaveError | None] = [None]
    if _rank() == 0:
        try:
            action()
        except (OSError, RuntimeError) as error:
            failure = [as_save_error(error, folder)]
    if dist.is_initialized():
        dist.broadcast_object_list(failure, src=0, group=group)
    if failure[0] is not None:
        raise failure[0]
