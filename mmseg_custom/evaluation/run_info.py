"""Facts about a run: checkpoint, versions, hardware, peak memory."""
import os
import platform

import cv2
import mmcv
import mmseg
import numpy as np
import torch
from mmcv.runner import get_dist_info

from ..checkpoint.folders import files_of
from ..checkpoint.provenance import sha256_of, sha256_of_all
from ..checkpoint.shard_reader import is_sharded_checkpoint
from ..peak_memory import process_peak
from ..version import __version__


def describe_checkpoint(path: str) -> dict | None:
    """Returns path, file, bytes and SHA-256 of a checkpoint; None if there is no such file.

    ``file`` is the name of what a link such as latest.pth leads to now. For a sharded folder, the
    hash is over the names and hashes of its files.
    """
    if not os.path.exists(path):
        return None
    if os.path.isdir(path):
        files = (sorted(entry.path for entry in os.scandir(path) if entry.is_file())
                 if is_sharded_checkpoint(path) else files_of(path))
        size, digest = sum(map(os.path.getsize, files)), sha256_of_all(files)
    else:
        size, digest = os.path.getsize(path), sha256_of(path)
    return dict(path=os.path.abspath(path), file=os.path.basename(os.path.realpath(path)),
                bytes=size, sha256=digest)


def versions() -> dict[str, str]:
    """Returns the versions of the libraries that compute the metrics."""
    found = dict(mmseg_custom=__version__, torch=torch.__version__, mmcv=mmcv.__version__,
                 mmsegmentation=mmseg.__version__, numpy=np.__version__, opencv=cv2.__version__,
                 python=platform.python_version())
    if torch.version.cuda:
        found['cuda'] = torch.version.cuda
    return found


def hardware(device: str) -> dict[str, object]:
    """Describes the hardware of this process, and counts the processes."""
    found = dict(device=device, processes=get_dist_info()[1], cpu=_cpu_name(),
                 cpus=len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity')
                 else os.cpu_count(), system=platform.platform())
    if device == 'cuda':
        found['gpu'] = torch.cuda.get_device_name()
    return found


def peak_memory(device: str) -> dict[str, int]:
    """Returns the peak memory of this process so far, in bytes.

    ``host`` is the resident memory, ``gpu`` that of PyTorch's tensors.
    """
    peak = dict(host=process_peak('cpu'))
    if device == 'cuda':
        peak['gpu'] = process_peak('cuda')
    return peak


def _cpu_name() -> str:
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            names = [line.partition(':')[2].strip() for line in file
                     if line.startswith('model name')]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
