"""Segmentor -> checkpoint, written whole or not at all; a small one if the backbone is frozen.

A work dir after iteration 2000 of a run with a frozen backbone:

    iter_1000.pth        megabytes: heads, optimizer, meta with the SHA-256 of the backbone's file
    iter_2000.pth
    latest.pth           -> iter_2000.pth
    iter_3000.pth.part   only while it is written, or after a kill: removed when a run starts
"""
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.optim import Optimizer

from .export import write_pth
from .metadata import own_records, plain, trained_state_dict
from .optimizer import with_names
from .work_dir import point_latest_to


@dataclass(frozen=True)
class FileSave:
    """A checkpoint that one process writes into a file.

    Attributes:
        path: File to write.
        content: Content of the file, which has the tensors themselves or copies of them.
        link_latest: Whether to point ``latest.pth`` beside it to the file.
        by_all_ranks: Whether all ranks write it together.
    """
    path: str
    content: dict[str, Any]
    link_latest: bool = False
    by_all_ranks = False

    def write(self, group: ProcessGroup | None = None) -> None:
        """Writes the file.

        Args:
            group: Accepted as by :class:`.sharded.FolderSave`: nothing is exchanged.

        Raises:
            SaveError: If it could not be written; what was there before is unchanged.
        """
        write_pth(self.path, self.content)
        if self.link_latest:
            point_latest_to(self.path)


def save_checkpoint(model: nn.Module, path: str, optimizer: Optimizer | dict | None = None,
                    meta: dict | None = None, *, link_latest: bool = False,
                    others: Mapping[str, Tensor] | None = None) -> None:
    """Saves a segmentor, small if its backbone is frozen, else in mmcv's classic form.

    Tensors of a GPU are copied to the CPU one by one, as they are written.

    Args:
        model: Segmentor, wrapped or not.
        path: File to write.
        optimizer: Optimizer whose state is saved too, or a dict of optimizers.
        meta: Plain values; numpy numbers in it become Python's.
        link_latest: Whether to point ``latest.pth`` beside it to the file.
        others: More tensors for the state dict, by name.

    Raises:
        SaveError: If the file could not be written (a full disk, most likely); an earlier file of
            that name, and ``latest.pth``, are still what they were.
    """
    prepare_save(model, path, optimizer, meta, link_latest=link_latest, others=others).write()


def prepare_save(model: nn.Module, path: str, optimizer: Optimizer | dict | None = None,
                 meta: dict | None = None, *, link_latest: bool = False,
                 others: Mapping[str, Tensor] | None = None) -> FileSave:
    """Returns what :func:`save_checkpoint` writes; its tensors are those of the model."""
    while isinstance(getattr(model, 'module', None), nn.Module):
        model = model.module
    state_dict, record = trained_state_dict(model)
    meta = {**(meta or {}), **({'backbone': record} if record else {}), **own_records(model)}
    checkpoint: dict[str, Any] = dict(meta=plain(meta),
                                      state_dict=OrderedDict({**state_dict, **(others or {})}))
    if isinstance(optimizer, dict):
        checkpoint['optimizer'] = {name: _state_of(part, model)
                                   for name, part in optimizer.items()}
    elif optimizer is not None:
        checkpoint['optimizer'] = _state_of(optimizer, model)
    return FileSave(path, checkpoint, link_latest)


def _state_of(optimizer: Optimizer, model: nn.Module) -> dict:
    """Returns the state of an optimizer, with names, and with lazy tensors where it can."""
    state = getattr(optimizer, 'lazy_state_dict', optimizer.state_dict)()
    return with_names(state, optimizer, model)
