"""Libraries, kernels, collectives, and room for checkpoints and for the loader's workers."""
import copy
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

from ..engine.config import default_work_dir, loader_options
from ..layers.attention import select_kernel
from ..layers.norm import rms_norm_class
from .findings import Finding, fault, warning
from .memory import GIB, MIB, Plan
from .weights import build_network

PART = 'environment'
LEAST_TORCH = (2, 6)
SHM = '/dev/shm'
PREFETCH = 2  # batches that a worker of torch's loader has ready
SLACK = 64 * MIB  # of a disk, that logs and records take


def check_environment(cfg: Config, config_path: str,
                      plan: Plan) -> tuple[list[Finding], dict]:
    """Looks at everything around the run.

    Args:
        cfg: The config.
        config_path: Names the work dir where the config does not.
        plan: What the run is to be.

    Returns:
        (findings, figures).
    """
    kernel = select_kernel(cfg.model.backbone.get('use_flash_attn', True))
    figures = dict(
        python=platform.python_version(), torch=torch.__version__, numpy=np.__version__,
        mmcv=mmcv.__version__, mmseg=mmseg.__version__, cpus=os.cpu_count(),
        gpus=[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        attention='torch SDPA' if kernel.__name__ == 'sdpa' else 'flash-attn',
        rms_norm=f'{rms_norm_class().__module__.split(".")[0]}.{rms_norm_class().__name__}',
        nccl=dist.is_nccl_available(), gloo=dist.is_gloo_available())
    findings = _check_versions() + _check_collectives(plan)
    for found, more in (_check_disk(cfg, config_path), _check_shared_memory(cfg, plan)):
        findings += found
        figures.update(more)
    return findings, figures


def _check_versions() -> list[Finding]:
    findings = []
    version = tuple(int(part) for part in torch.__version__.split('.')[:2])
    if version < LEAST_TORCH:
        findings.append(fault(PART, f'PyTorch {torch.__version__} is too old (expected 2.6 or '
                              'newer)', 'pip install -U torch torchvision'))
    if not mmseg.__version__.startswith('0.30') or not mmcv.__version__.startswith('1.'):
        findings.append(fault(PART, f'mmseg {mmseg.__version__} with mmcv {mmcv.__version__} '
                              '(expected 0.30 and 1.7)',
                              'pip install -r requirements/runtime.txt'))
    return findings


def _check_collectives(plan: Plan) -> list[Finding]:
    if plan.ranks == 1:
        return []
    name = 'nccl' if plan.device == 'cuda' and torch.cuda.is_available() else 'gloo'
    found = dist.is_nccl_available() if name == 'nccl' else dist.is_gloo_available()
    if not found:
        return [fault(PART, f'this PyTorch has no {name}, which {plan.ranks} processes need',
                      'install a PyTorch with it, or run in one process')]
    gpus = torch.cuda.device_count()
    if plan.device == 'cuda' and gpus and plan.ranks > gpus:
        return [warning(PART, f'{gpus} GPU(s) here, {plan.ranks} asked for',
                        'start on several nodes: NNODES in the README')]
    return []


def _check_disk(cfg: Config, config_path: str) -> tuple[list[Finding], dict]:
    """Room for the checkpoints that are kept, the best, and the one that is being written."""
    work_dir = cfg.get('work_dir') or default_work_dir(config_path)
    folder = osp.abspath(work_dir)
    while not osp.isdir(folder):
        folder = osp.dirname(folder)
    each = checkpoint_bytes(cfg)
    options = cfg.get('checkpoint_config') or {}
    iterations = (cfg.get('runner') or {}).get('max_iters', 0)
    total = max(iterations // options.get('interval', iterations or 1), 1)
    kept = options.get('max_keep_ckpts', -1)
    count = (min(kept, total) if kept > 0 else total) + 1
    count += bool((cfg.get('evaluation') or {}).get('save_best'))
    needed, free = each * count + SLACK, shutil.disk_usage(folder).free
    figures = dict(work_dir=work_dir, checkpoint_bytes=each, checkpoints=count, disk_free=free)
    findings = []
    if not os.access(folder, os.W_OK):
        findings.append(fault(PART, 'the work dir cannot be written', 'chmod, or --work-dir',
                              folder))
    if free < needed:
        findings.append(fault(
            PART, f'{free / GIB:.1f} GiB are free for {count} checkpoints of {each / GIB:.2f} GiB '
            '(kept, best and the one being written)',
            'free space, set checkpoint_config.max_keep_ckpts, or give another --work-dir',
            folder))
    return findings, figures


def checkpoint_bytes(cfg: Config) -> int:
    """The size of one checkpoint: trained weights and the optimizer's state.

    Weights of a frozen backbone are left to their file; without one they are kept.
    """
    model = build_network(copy.deepcopy(cfg))
    backbone_file = cfg.model.backbone.get('pretrained')
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.nbytes for p in model.parameters() if not p.requires_grad)
    moments = 0 if (cfg.get('optimizer') or {}).get('type') == 'SGD' else 2
    return 4 * trained * (1 + moments) + (0 if backbone_file else frozen) + sum(
        b.nbytes for b in model.buffers())


def _check_shared_memory(cfg: Config, plan: Plan) -> tuple[list[Finding], dict]:
    """Workers hand batches over in shared memory, which containers keep small."""
    workers = loader_options(cfg, 'train').get('workers_per_gpu', 0)
    local = min(plan.ranks, plan.per_node)
    sample = prod(plan.crop) * (3 * 4 + 8)  # float32 image, int64 labels
    needed = sample * plan.images * PREFETCH * workers * local
    if not workers or not osp.isdir(SHM):
        return [], {}
    free = shutil.disk_usage(SHM).free
    findings = []
    if free < needed:
        findings.append(fault(
            PART, f'{free / MIB:.0f} MiB are free, {local} x {workers} loader workers need '
            f'{needed / MIB:.0f} MiB', 'start the container with --shm-size=8g or --ipc=host, or '
            'set data.workers_per_gpu lower', SHM))
    return findings, dict(shm_free=free, shm_needed=needed)
