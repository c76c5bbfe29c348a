"""Failures of GPUs and of collectives while a run is under way, in one line each."""
import re

import torch
import torch.distributed as dist

from ..units import format_bytes

_UNITS = dict(bytes=1, KiB=2**10, MiB=2**20, GiB=2**30)
_SIZE = r'(\d+(?:\.\d+)?) (bytes|KiB|MiB|GiB)'
_SPLIT_UP = 0.1  # share of a GPU, reserved and unallocated, that points to fragmentation
_OTHERS = 0.05  # share of a GPU in other hands that is worth a word
_LESS = ('`python tools/doctor.py CONFIG` says what fits; training needs less with '
         'data.samples_per_gpu=1 and --total-batch N, model.backbone.with_cp=True, --engine fsdp2 '
         'on several GPUs, or optimizer.type=LowMemoryAdamW, testing with '
         'model.test_cfg.window_batch=1')
_KNOWN = {  # what torch's messages contain -> what is said
    'CUDA error: out of memory': f'no memory left on the GPU: {_LESS}',
    'CUBLAS_STATUS_ALLOC_FAILED': f'no memory left on the GPU, for cuBLAS: {_LESS}',
    'CUBLAS_STATUS_NOT_INITIALIZED': (
        f'cuBLAS does not start; most often no memory is left: {_LESS}'),
    'CUDNN_STATUS_ALLOC_FAILED': f'no memory left on the GPU, for cuDNN: {_LESS}',
    'unable to find an engine to execute': (
        f'cuDNN has no kernel that runs; most often no memory is left: {_LESS}'),
    "'out of memory'": f'no memory left on the GPU, for nccl: {_LESS}',
    'no kernel image is available': (
        'this PyTorch, or a kernel library beside it (flash-attn, apex), was not built for this '
        'GPU: install builds for its compute capability, or use --device cpu'),
    'busy or unavailable': (
        'the GPU is held by another process, or is in exclusive mode (nvidia-smi -q -d COMPUTE): '
        'end the other process, or choose another GPU by --gpu-id or CUDA_VISIBLE_DEVICES'),
    'uncorrectable ECC error': (
        'the GPU reports an uncorrectable memory error: reset it or take it out of service '
        '(nvidia-smi -q -d ECC), and resume with --auto-resume'),
}
_LOST = ('remote process exit', 'remote peer', 'closed by peer', 'reset by peer', 'ncclRemoteError',
         'Connection refused', 'Broken pipe', 'timed out', 'Timed out', 'timeout', 'aborted')


def explain_failure(error: BaseException) -> str | None:
    """Returns the line for a failure of a GPU or of nccl; None for any other error."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return out_of_memory(text)
    if not isinstance(error, RuntimeError) or lost_rank(error):
        return None
    for words, line in _KNOWN.items():
        if words in text:
            return line
    if isinstance(error, dist.DistBackendError) and 'NCCL' in text:
        last = text.rpartition('Last error:')[2].strip().splitlines()
        return (f'nccl failed: {last[0] if last else text.splitlines()[0]}; NCCL_DEBUG=WARN in the '
                'environment prints more')
    return None


def lost_rank(error: BaseException) -> bool:
    """Returns whether an error of torch's collectives means that another process is gone."""
    text = str(error)
    if 'NCCL' in text and isinstance(error, RuntimeError):
        return any(words in text for words in _LOST)  # else nccl itself failed, here
    return isinstance(error, dist.DistError) or isinstance(error, RuntimeError) and any(
        word in text for word in ('gloo/', 'Gloo', 'Connection closed by peer',
                                  'Connection reset by peer'))


def explain_lost_rank(error: BaseException) -> str:
    """Returns the line for an error that means that another process is gone, or does not answer."""
    waited = re.search(r'[Tt]imed out waiting (\d+)ms', str(error))
    if waited is None:
        return 'the connection to another process is lost; its message says why'
    return (f'another process has not answered for {int(waited.group(1)) / 60000:.3g} minutes '
            '(dist_params.timeout_minutes): it is stopped, stuck, or cut off from the network, or '
            'one process has more to do than the others and needs a longer timeout; resume with '
            '--auto-resume')


def out_of_memory(text: str) -> str:
    """Returns the line for a ``torch.OutOfMemoryError``, from the figures in its message.

    Args:
        text: Message of the error; parts that a version of PyTorch leaves out are left out.
    """
    asked, total = _find(f'allocate {_SIZE}', text), _find(f'capacity of {_SIZE}', text)
    free = _find(f'{_SIZE} is free', text)
    own = _find(f'this process has {_SIZE}', text)
    spare = _find(f'{_SIZE} is reserved by PyTorch but unallocated', text)
    gpu = re.search(r'GPU (\d+)', text)
    others = None
    if total is not None and free is not None and own is not None:
        others = max(total - free - own, 0)
    facts = [f'{format_bytes(asked)} were asked for' if asked is not None else '',
             f'{format_bytes(free)} of {format_bytes(total)} are free'
             if free is not None and total is not None else '',
             f'this process holds {format_bytes(own)}' if own is not None else '',
             f'others hold {format_bytes(others)}' if others is not None else '']
    ways = [_LESS]
    if total and spare is not None and spare > _SPLIT_UP * total:
        ways.insert(0, f'{format_bytes(spare)} of it are in pieces: set '
                    'PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True')
    if total and others is not None and others > _OTHERS * total:
        ways.insert(0, 'end the other processes (nvidia-smi lists them), or choose another GPU by '
                    '--gpu-id or CUDA_VISIBLE_DEVICES')
    return (f'no memory left on GPU {gpu.group(1) if gpu else "?"} '
            f'({", ".join(filter(None, facts)) or text.splitlines()[0]}): {"; ".join(ways)}')


def _find(pattern: str, text: str) -> float | None:
    """Returns the bytes of a size in a message."""
    found = re.search(pattern, text)
    return float(found.group(1)) * _UNITS[found.group(2)] if found else None
