"""Writing checkpoints: whole or not at all, small where the backbone is frozen.

A work dir after iteration 2000 of a run with a frozen backbone:

    iter_1000.pth        megabytes: heads, optimizer, meta with the SHA-256 of the backbone's file
    iter_2000.pth
    latest.pth           -> iter_2000.pth
    iter_3000.pth.part   only while it is written, or after a kill: swept when a run starts
"""
import errno
import logging
import os
import re
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from ..errors import InputError
from . import provenance
from .segmentor import BACKBONE

PART = '.part'


class SaveError(OSError):
    """A checkpoint could not be written; what was there before is unchanged."""

    def __str__(self) -> str:
        return f'{self.filename} {self.strerror}'


def save_checkpoint(model: nn.Module, path: str, optimizer: Optimizer | dict | None = None,
                    meta: dict | None = None, *, link_latest: bool = False) -> None:
    """Saves a segmentor, small if its backbone is frozen, else in mmcv's classic form.

    Args:
        model: The segmentor, wrapped or not.
        path: Of the file.
        optimizer: Whose state goes with it; or a dict of them.
        meta: Plain values; numpy numbers in it become Python's.
        link_latest: Also point ``latest.pth`` beside it to the file.

    Raises:
        SaveError: If the file could not be written (a full disk, most likely); an earlier file of
            that name, and ``latest.pth``, are still what they were.
    """
    while isinstance(getattr(model, 'module', None), nn.Module):
        model = model.module
    state_dict, entry = trained_state_dict(model)
    meta = {**(meta or {}), **({'backbone': entry} if entry else {})}
    checkpoint: dict[str, Any] = dict(
        meta=plain(meta),
        state_dict=OrderedDict((name, tensor.cpu()) for name, tensor in state_dict.items()))
    if isinstance(optimizer, dict):
        checkpoint['optimizer'] = {name: part.state_dict() for name, part in optimizer.items()}
    elif optimizer is not None:
        checkpoint['optimizer'] = optimizer.state_dict()
    atomic_save(checkpoint, path)
    if link_latest:
        point_latest_to(path)


def trained_state_dict(model: nn.Module) -> tuple[dict, dict | None]:
    """The tensors that a checkpoint must hold, and the record of the file that holds the others.

    Left to the file are the frozen parameters of the backbone that were loaded from it. Without
    such a file (random weights, or weights of another checkpoint) everything is kept.

    Returns:
        (state dict, ``meta['backbone']``); the latter is None if nothing was left out.
    """
    state_dict = model.state_dict()
    backbone = getattr(model, 'backbone', None)
    source = provenance.source_of(backbone) if backbone is not None else None
    if source is None:
        return state_dict, None
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    frozen.intersection_update(source.names)
    if not frozen:
        return state_dict, None
    trained = {name: tensor for name, tensor in state_dict.items()
               if name.removeprefix(BACKBONE) not in frozen}
    return trained, provenance.record(backbone, source)


def atomic_save(obj: object, path: str) -> None:
    """``torch.save`` to a temporary name beside the target, flushed to the disk, then renamed.

    Raises:
        SaveError: If it failed; what was at the path is still there.
    """
    with written_whole(path) as part:
        torch.save(obj, part)


@contextmanager
def written_whole(path: str) -> Iterator[str]:
    """Gives a temporary name beside a file; flushes and renames at the end.

    Raises:
        SaveError: If writing failed; the temporary file is gone, and what was at the path is there.
    """
    part = path + PART
    try:
        yield part
        flush(part)
        os.replace(part, path)
        flush(os.path.dirname(os.path.abspath(path)))
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise save_error(error, path) from error
    finally:
        if os.path.exists(part):
            os.remove(part)


def flush(path: str) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def point_latest_to(path: str) -> None:
    """Makes ``latest.pth`` beside a checkpoint a link to it; there is never a moment without one.

    Raises:
        SaveError: If it could not be written.
    """
    latest = os.path.join(os.path.dirname(path), 'latest.pth')
    part = latest + PART
    try:
        if os.path.lexists(part):
            os.remove(part)
        try:
            os.symlink(os.path.basename(path), part)
        except OSError:  # file systems without links
            shutil.copyfile(path, part)
        os.replace(part, latest)
    except OSError as error:
        raise save_error(error, latest) from error


def sweep(work_dir: str) -> list[str]:
    """Removes what a killed run left half-written; call it when a run starts, on one rank.

    Returns:
        The paths that were removed.
    """
    leftover = [os.path.join(work_dir, name) for name in sorted(os.listdir(work_dir))
                if name.endswith(('.pth' + PART, '.dcp' + PART))]
    for path in leftover:
        remove_checkpoint(path)
        logging.getLogger('mmseg').info('removed %s, left by a run that was killed', path)
    return leftover


def remove_checkpoint(path: str) -> None:
    """Removes a checkpoint, file or folder."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


def is_whole(path: str) -> bool:
    """Whether a checkpoint was written to its end; reads the directory of the file alone."""
    if os.path.isdir(path):
        from .sharded import check_whole  # which needs this module
        try:
            check_whole(path)
        except InputError:
            return False
        return True
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
            return any(entry.filename.endswith('/data.pkl') for entry in entries) and all(
                entry.header_offset + entry.compress_size < file.start_dir for entry in entries)
    except (OSError, zipfile.BadZipFile):
        return False


def newest_whole(work_dir: str) -> str | None:
    """The checkpoint with the highest iteration (or epoch) that was written to its end.

    The names count, not ``latest.pth``, which may be older. Newer ones that were cut short are
    named in a warning.
    """
    found = []
    for name in os.listdir(work_dir) if os.path.isdir(work_dir) else []:
        number = re.fullmatch(r'(?:iter|epoch)_(\d+)\.(?:pth|dcp)', name)
        if number:
            found.append((int(number.group(1)), os.path.join(work_dir, name)))
    for _, path in sorted(found, reverse=True):
        if is_whole(path):
            return path
        logging.getLogger('mmseg').warning(
            '%s is cut short (%s) and is passed over', path, 'a part is missing or too small'
            if os.path.isdir(path) else f'{os.path.getsize(path)} bytes')
    return None


def plain(value: Any) -> Any:
    """Turns numpy numbers, tuples and mappings in metadata into what is read without code.

    Tensors and arrays stay (arrays as tensors); anything else that is not a plain value becomes its
    string.
    """
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, range)):
        items = [plain(item) for item in value]
        return tuple(items) if type(value) is tuple else items
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if value is None or type(value) in (bool, int, float, complex, str, bytes) or isinstance(
            value, torch.Tensor):
        return value
    return str(value)


def save_error(error: Exception, path: str) -> SaveError:
    """Says why a write failed; torch does not, when the disk is full."""
    folder = os.path.dirname(os.path.abspath(path))
    reason = getattr(error, 'strerror', None) or (str(error).splitlines() or [repr(error)])[0]
    if 'enforce fail' in reason or 'iostream' in reason:  # all that torch says then
        reason = 'writing it failed midway'
    if os.path.isdir(folder):
        reason += f'; {shutil.disk_usage(folder).free / 2**20:.0f} MiB were free on its disk'
    else:
        reason = f'the folder {folder} does not exist'
    return SaveError(getattr(error, 'errno', None) or errno.EIO,
                     f'was not written ({reason}); earlier files are unchanged', path)
