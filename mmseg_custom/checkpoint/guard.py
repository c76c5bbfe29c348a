"""Makes mmcv's own loading safe: ``load_checkpoint``, ``resume``, and addresses of all kinds.

mmcv 1.7 calls ``torch.load`` without saying ``weights_only``: what an address delivers is unpickled
freely, and so is a local file where TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set. Can go with mmcv 1.x.
"""
import os
from typing import Any
from urllib.parse import urlparse

import torch
from torch.hub import download_url_to_file

from ..errors import InputError
from .segmentor import read_checkpoint

REFUSED = ('pavi://', r'(\S+\:)?s3://')


def install_safe_loading() -> None:
    """Puts this package's loader under everything in mmcv that reads a checkpoint.

    Small checkpoints are completed, so that mmseg's own tools read them too. The names of mmcv's
    model zoo ('torchvision://', 'open-mmlab://' ...) still work: they lead to addresses.
    """
    from mmcv.runner import checkpoint as mmcv_checkpoint  # this package works without mmcv
    loader = mmcv_checkpoint.CheckpointLoader
    loader.register_scheme('', load_from_local, force=True)
    loader.register_scheme(('http://', 'https://'), load_from_http, force=True)
    loader.register_scheme(REFUSED, load_from_refused, force=True)
    loader.register_scheme(('open-mmlab://', 'openmmlab://'), load_from_openmmlab, force=True)
    # The loaders of 'torchvision://' and 'mmcls://' look it up in their module.
    mmcv_checkpoint.load_from_http = load_from_http


def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Reads a checkpoint of either form.

    Args:
        filename: Path of the checkpoint.
        map_location: Ignored: tensors stay on the CPU, as views of the file; the caller copies
            them to the device where it needs them.

    Raises:
        InputError: See :func:`.segmentor.read_checkpoint`.
    """
    return read_checkpoint(os.path.expanduser(filename))


def load_from_http(filename: str, map_location: Any = None, model_dir: str | None = None) -> dict:
    """Downloads a checkpoint into torch's cache, once, and reads it as a local one.

    In distributed runs rank 0 downloads and the others wait, as mmcv has it.

    Raises:
        InputError: If it cannot be downloaded, or read.
    """
    from mmcv.runner import get_dist_info
    folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
    path = os.path.join(folder, os.path.basename(urlparse(filename).path))
    rank, world_size = get_dist_info()
    if rank == 0 and not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        try:
            download_url_to_file(filename, path)  # writes beside the target, then renames
        except OSError as error:
            raise InputError(f'{filename} cannot be downloaded: {error}') from error
    if world_size > 1:
        torch.distributed.barrier()
    return load_from_local(path)


def load_from_openmmlab(filename: str, map_location: Any = None) -> dict:
    """Reads a checkpoint of mmcv's zoo; entries are addresses, or files below MMCV_HOME.

    Raises:
        InputError: If the zoo does not have it.
    """
    from mmcv.runner import checkpoint as mmcv_checkpoint
    name = filename.partition('://')[2]
    name = mmcv_checkpoint.get_deprecated_model_names().get(name, name)
    entry = mmcv_checkpoint.get_external_models().get(name)
    if entry is None:
        raise InputError(f"{filename}: mmcv's model zoo has no {name!r}")
    if entry.startswith(('http://', 'https://')):
        return load_from_http(entry)
    return load_from_local(os.path.join(mmcv_checkpoint._get_mmcv_home(), entry))


def load_from_refused(filename: str, map_location: Any = None) -> dict:
    """Refuses stores whose clients unpickle freely.

    Raises:
        InputError: On every call.
    """
    raise InputError(f'{filename}: checkpoints are not read from this kind of address: fetch the '
                     'file and give its path')
