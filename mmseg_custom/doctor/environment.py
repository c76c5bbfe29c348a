"""Libraries, kernels, collectives, disk space for checkpoints, and shared memory for loaders."""
import os
import os.path as osp
import platform
import shutil
from math import prod

import mmcv
import mmseg
import numpy as np
import torch
import torch.distributed as dist
from mmcv import Config
from torch import nn

from ..distributed.compiler import missing_for
from ..distributed.devices import gpu_problem, missing_kernels, taken_by_others
from ..distributed.memory import FP32, moments_of
from ..distributed.options import Engine
from ..distributed.precision import heads
from ..engine.build import build_network, master_dtype
from ..engine.config import loader_options
from ..layers.attention import select_kernel
from ..layers.norm import rms_norm_class
from ..layers.rms_norm import RMSNorm
from ..models.backbone_options import backbone_option
from ..units import MIB, format_bytes
from .findings import Finding, fault, warning
from .run_shape import RunShape

PART = 'environment'
MIN_TORCH = (2, 6)
SHM = '/dev/shm'
PREFETCH = 2  # batches that each worker of torch's loader keeps ready
LOGS = 64 * MIB  # of a disk, for logs and records


def check_environment(cfg: Config, shape: RunShape) -> tuple[list[Finding], dict]:
    """Checks libraries, kernels, collectives, disk and shared memory.

    Args:
        cfg: Resolved config of the run.
        shape: Sizes of the run.

    Returns:
        (findings, figures).
    """
    kernel = select_kernel(cfg.model.backbone.get('use_flash_attn', True))
    norm = rms_norm_class()
    figures = dict(
        python=platform.python_version(), torch=torch.__version__, numpy=np.__version__,
        mmcv=mmcv.__version__, mmseg=mmseg.__version__, cpus=os.cpu_count(),
        gpus=[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        attention='torch SDPA' if kernel.__name__ == 'sdpa' else 'flash-attn',
        rms_norm='torch.RMSNorm' if norm is RMSNorm else 'apex.FusedRMSNorm',
        nccl=dist.is_nccl_available(), gloo=dist.is_gloo_available())
    disk, disk_figures = _check_disk(cfg)
    shm, shm_figures = _check_shared_memory(cfg, shape)
    findings = [*_check_versions(), *check_gpus(shape), *_check_compiler(cfg, shape),
                *_check_collectives(shape), *disk, *shm]
    return findings, {**figures, **disk_figures, **shm_figures}


def _check_versions() -> list[Finding]:
    findings = []
    version = tuple(int(part) for part in torch.__version__.split('.')[:2])
    if version < MIN_TORCH:
        findings.append(fault(PART, f'PyTorch {torch.__version__} is too old (expected 2.6 or '
                              'newer)', 'pip install -U torch torchvision'))
    if not mmseg.__version__.startswith('0.30') or not mmcv.__version__.startswith('1.'):
        findings.append(fault(PART, f'mmseg {mmseg.__version__} with mmcv {mmcv.__version__} '
                              '(expected 0.30 and 1.7)',
                              'pip install -r requirements/runtime.txt'))
    return findings


def check_gpus(shape: RunShape) -> list[Finding]:
    """Checks that the GPUs of this machine can be used, and that no other process fills them."""
    if shape.device != 'cuda':
        return []
    problem = gpu_problem()
    if problem is not None:  # No GPU at all: the run is meant for another machine.
        level = fault if shape.memory is None else warning  # --gpu-memory: meant for another, too
        return [level(PART, problem.reason, problem.way_out)] if problem.unexpected else []
    findings = []
    for index in range(min(shape.ranks, torch.cuda.device_count())):
        missing = missing_kernels(torch.cuda.get_device_capability(index),
                                  torch.cuda.get_arch_list())
        if missing:
            reason, _, way_out = missing.partition(': ')
            findings.append(fault(PART, reason, way_out, f'GPU {index}'))
        elif (taken := taken_by_others(index)) is not None:
            findings.append(warning(PART, taken, 'end them, or choose other GPUs by '
                                    'CUDA_VISIBLE_DEVICES'))
    return findings


def _check_compiler(cfg: Config, shape: RunShape) -> list[Finding]:
    """Checks that blocks can be compiled where a run has that done; it would go on without."""
    if not Engine.of(cfg.get('engine')).is_on('compile'):
        return []
    reason, _, way_out = (missing_for(shape.device) or '').rpartition(': ')
    return [warning(PART, f'engine.compile: the blocks stay eager, since {reason}',
                    f'{way_out}, or engine.compile=False')] if reason else []


def _check_collectives(shape: RunShape) -> list[Finding]:
    if shape.ranks == 1:
        return []
    name = 'nccl' if shape.device == 'cuda' and torch.cuda.is_available() else 'gloo'
    if not (dist.is_nccl_available() if name == 'nccl' else dist.is_gloo_available()):
        return [fault(PART, f'this PyTorch has no {name}, which {shape.ranks} processes need',
                      'install a PyTorch with it, or run in one process')]
    gpus = torch.cuda.device_count()
    if shape.device == 'cuda' and gpus and shape.ranks > gpus:
        return [warning(PART, f'{gpus} GPU(s) here, {shape.ranks} asked for',
                        'start on several nodes: NNODES in the README')]
    return []


def _check_disk(cfg: Config) -> tuple[list[Finding], dict]:
    """Checks the disk space for checkpoints: those kept, the best, and the one being written."""
    folder = osp.abspath(cfg.work_dir)
    while not osp.isdir(folder):
        folder = osp.dirname(folder)
    each = checkpoint_bytes(cfg)
    options = cfg.get('checkpoint_config') or {}
    iterations = (cfg.get('runner') or {}).get('max_iters', 0)
    total = max(iterations // options.get('interval', iterations or 1), 1)
    kept = options.get('max_keep_ckpts', -1)
    count = (min(kept, total) if kept > 0 else total) + 1
    count += bool((cfg.get('evaluation') or {}).get('save_best'))
    needed, free = each * count + LOGS, shutil.disk_usage(folder).free
    figures = dict(work_dir=cfg.work_dir, checkpoint_bytes=each, checkpoints=count, disk_free=free)
    findings = []
    if not os.access(folder, os.W_OK):
        findings.append(fault(PART, 'the work dir cannot be written', 'chmod, or --work-dir',
                              folder))
    if free < needed:
        findings.append(fault(
            PART, f'{format_bytes(free)} are free for {count} checkpoints of {format_bytes(each)} '
            '(kept, best and the one being written)',
            'free space, set checkpoint_config.max_keep_ckpts, or give another --work-dir',
            folder))
    return findings, figures


def checkpoint_bytes(cfg: Config, model: nn.Module | None = None) -> int:
    """Returns the size of a checkpoint: trained weights, and moments of the optimizer in float32.

    Frozen weights are not part of it where they were loaded from a file.

    Args:
        cfg: Config of the run.
        model: Its segmentor, where that was built already.
    """
    model = model or build_network(cfg, on_meta=True)
    trained = {part: sum(p.numel() for p in each.parameters() if p.requires_grad)
               for part, each in model.named_children()}
    weights = FP32 * sum(trained.values()) - (FP32 - master_dtype(cfg).itemsize) * (
        trained['backbone'])
    tensors = [*model.buffers(), *(p for p in model.parameters() if not p.requires_grad)]
    if backbone_option(cfg.model.backbone, 'pretrained'):
        tensors = [b for part in heads(model) for b in part.buffers()]
    return weights + FP32 * moments_of(cfg.optimizer) * sum(trained.values()) + sum(
        tensor.nbytes for tensor in tensors)


def _check_shared_memory(cfg: Config, shape: RunShape) -> tuple[list[Finding], dict]:
    """Checks the shared memory that workers pass batches in, which is small in containers."""
    workers = loader_options(cfg, 'train').get('workers_per_gpu', 0)
    local = min(shape.ranks, shape.per_node)
    sample = prod(shape.crop) * (3 * 4 + 8)  # float32 image, int64 labels
    needed = sample * shape.images * PREFETCH * workers * local
    if not workers or not osp.isdir(SHM):
        return [], {}
    free = shutil.disk_usage(SHM).free
    findings = []
    if free < needed:
        findings.append(fault(
            PART, f'{format_bytes(free)} are free, {local} x {workers} loader workers need '
            f'{format_bytes(needed)}', 'start the container with --shm-size=8g or --ipc=host, or '
            'set data.workers_per_gpu lower', SHM))
    return findings, dict(shm_free=free, shm_needed=needed)
