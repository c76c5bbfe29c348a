"""Memory and time to build the backbone and load its weights, ours against the classic way.

For each size, a flat .pth of random bfloat16 weights is written (InternViT-6B's width; 4 blocks are
1 GB, 48 are 12 GB; position embedding 16x16) and loaded for a grid of 36x36, each way in a process
of its own. Then every page of every weight is touched, so that nothing is left to load. Printed are
the peak of the resident memory over what the process had before, as a ratio to the bytes of the
weights in memory, and the seconds.

    ours       built on the meta device, mapped, assigned
    ours-fp32  the same into float32 parameters, as for training: every tensor is converted
    classic    built in float32, torch.load, load_state_dict, cast to bfloat16; is left out where
               the machine has not the memory for it
"""
import os
import tempfile
import time

import torch
from torch import nn

from benchmarks.context import Context
from benchmarks.processes import call_in_process
from benchmarks.registry import benchmark
from mmseg_custom.checkpoint.export import write_pth
from mmseg_custom.checkpoint.lazy import LazyTensor
from mmseg_custom.checkpoint.load import load_backbone, resample
from mmseg_custom.host_memory import free_host_memory
from mmseg_custom.models.backbones.intern_vit import InternViT6B

WAYS = ('ours', 'ours-fp32', 'classic')
CLASSIC = 'float32 build, torch.load, cast'
SIZES = (1, 12)  # GB of weights
BLOCK_BYTES = 2 * 12 * 3200**2  # in bfloat16, nearly


def build_on_meta(depth: int, img_size: int = 504) -> InternViT6B:
    """The backbone without memory."""
    with torch.device('meta'):
        return InternViT6B(depth=depth, img_size=img_size, out_indices=[depth - 1])


def write_file(path: str, depth: int) -> int:
    """Writes random weights on a grid of 16x16, tensor by tensor; returns their bytes."""
    tensors = {name: LazyTensor(tuple(t.shape), t.dtype, lambda shape=t.shape: torch.empty(
        shape, dtype=torch.bfloat16).uniform_(-0.02, 0.02))
        for name, t in build_on_meta(depth, img_size=224).state_dict().items()}
    write_pth(path, tensors)
    return sum(tensor.nbytes for tensor in tensors.values())


def load_ours(path: str, depth: int, dtype: torch.dtype | None = None) -> nn.Module:
    """What this project does."""
    model = build_on_meta(depth)
    load_backbone(model, path, dtype=dtype)
    return model


def load_classic(path: str, depth: int) -> nn.Module:
    """What was done before: a float32 copy first, then the file in memory, then a cast."""
    model = build_on_meta(depth).float().to_empty(device='cpu')
    for parameter in model.parameters():
        parameter.data.fill_(0.01)  # as any initialisation does, this touches the memory
    state_dict = torch.load(path, map_location='cpu', mmap=False)
    state_dict['pos_embed'] = resample(state_dict['pos_embed'], model.pos_embed.shape[1])
    model.load_state_dict(state_dict)
    del state_dict
    return model.to(torch.bfloat16)


def touch(model: nn.Module) -> None:
    """Reads a value of every page of every parameter."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.view(-1)[::4096 // parameter.itemsize].sum()


def memory_kib(field: str) -> int:
    """A field of /proc/self/status."""
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field + ':'))


def measure(way: str, path: str, depth: int) -> dict:
    """Builds, loads and touches in this process."""
    before = memory_kib('VmRSS')
    with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')  # the peak starts anew
    start = time.perf_counter()
    if way == 'classic':
        model = load_classic(path, depth)
    else:
        model = load_ours(path, depth, torch.float32 if way == 'ours-fp32' else None)
    loaded = time.perf_counter()
    touch(model)
    touched = time.perf_counter()
    weights = sum(p.nbytes for p in model.parameters())
    peak = (memory_kib('VmHWM') - before) * 1024
    return dict(way=way, weight_bytes=weights, peak_bytes=peak, ratio=round(peak / weights, 3),
                load_seconds=round(loaded - start, 2), touch_seconds=round(touched - loaded, 2),
                first_value=float(model.blocks[0].mlp.fc1.weight[0, 0]))


def needed_bytes(way: str, file_bytes: int) -> int:
    """About what a way needs at its peak; mapped pages can be dropped and count for little."""
    return {'ours': file_bytes // 10, 'ours-fp32': 2 * file_bytes, 'classic': 3 * file_bytes}[way]


def measure_ways(folder: str, gigabytes: float) -> dict[str, dict]:
    """Measures all ways at one size that the machine has the memory for."""
    depth = max(1, round(gigabytes * 1e9 / BLOCK_BYTES - 0.5))
    path = os.path.join(folder, f'{gigabytes:g}gb.pth')
    file_bytes = write_file(path, depth)
    found = {way: call_in_process(measure, way, path, depth) for way in WAYS
             if needed_bytes(way, file_bytes) * 1.15 < free_host_memory()}
    os.remove(path)
    return found


@benchmark('Memory and time to build the backbone and load its weights', minutes=8,
           devices=('cpu',), suite=())
def case(run: Context) -> None:
    """Measures every size."""
    with tempfile.TemporaryDirectory() as folder:
        for size in (0.2,) if run.tiny else SIZES:
            found = measure_ways(folder, size)
            classic = found.pop('classic', None)
            if len({result['first_value'] for result in found.values()}) > 1:
                run.wrong(f'the ways loaded different values of {size} GB')
            for way, result in found.items():
                for title, unit, key in (('peak memory over the bytes of the weights', 'x',
                                          'ratio'), ('time to load', 's', 'load_seconds')):
                    run.row(f'{size} GB, {way}: {title}', unit, result[key],
                            {CLASSIC: classic[key]} if classic else {})
                run.fact(**{f'{size} GB, {way}: seconds to touch all pages':
                            result['touch_seconds']})
            for way in set(WAYS) - set(found) - ({'classic'} if classic else set()):
                run.missing(f'{size} GB, {way}', 'the machine has not the memory for it')
