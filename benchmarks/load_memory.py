"""Memory and time to build the backbone and load its weights, ours against the classic way.

    python benchmarks/load_memory.py --gb 1 12 [--json results.json]

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
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from mmseg_custom.checkpoint.export import write_pth  # noqa: E402
from mmseg_custom.checkpoint.lazy import LazyTensor  # noqa: E402
from mmseg_custom.checkpoint.load import load_backbone, resample  # noqa: E402
from mmseg_custom.models.backbones.intern_vit import InternViT6B  # noqa: E402

WAYS = ('ours', 'ours-fp32', 'classic')
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


def available_bytes() -> int:
    """Memory that a new process may take."""
    with open('/proc/meminfo') as file:
        return next(int(line.split()[1]) for line in file
                    if line.startswith('MemAvailable')) * 1024


def needed_bytes(way: str, file_bytes: int) -> int:
    """About what a way needs at its peak; mapped pages can be dropped and count for little."""
    return {'ours': file_bytes // 10, 'ours-fp32': 2 * file_bytes, 'classic': 3 * file_bytes}[way]


def run(gigabytes: float, ways: list[str], folder: str) -> list[dict]:
    """Measures all ways at one size."""
    depth = max(1, round(gigabytes * 1e9 / BLOCK_BYTES - 0.5))
    path = os.path.join(folder, f'{gigabytes:g}gb.pth')
    file_bytes = write_file(path, depth)
    results = []
    for way in ways:
        if needed_bytes(way, file_bytes) * 1.15 > available_bytes():
            print(f'{gigabytes:g} GB  {way:9}  not run: needs about '
                  f'{needed_bytes(way, file_bytes) / 1e9:.0f} GB of memory', flush=True)
            continue
        done = subprocess.run([sys.executable, __file__, '--measure', way, path, str(depth)],
                              capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        result = dict(gigabytes=gigabytes, depth=depth, file_bytes=file_bytes,
                      **json.loads(done.stdout.splitlines()[-1]))
        results.append(result)
        print(f'{gigabytes:g} GB  {way:9}  peak {result["ratio"]:5.2f} x the weights   load '
              f'{result["load_seconds"]:6.2f} s   touch all {result["touch_seconds"]:6.2f} s',
              flush=True)
    os.remove(path)
    if len({result['first_value'] for result in results}) > 1:
        sys.exit('the ways loaded different values')
    return results


def main() -> None:
    """Measures every size, or one way in this process for the parent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--gb', type=float, nargs='+', default=[1.0], help='sizes, in 10^9 bytes')
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=list(WAYS))
    parser.add_argument('--folder', help='for the files; default: a temporary one')
    parser.add_argument('--json', help='write the results to this file')
    parser.add_argument('--measure', nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        way, path, depth = args.measure
        print(json.dumps(measure(way, path, int(depth))))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        results = [result for size in args.gb for result in run(size, args.ways, folder)]
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
    main()
