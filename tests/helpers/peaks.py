"""Peak memory of real training steps on the CPU: of each case in a forked process of its own.

    python tests/helpers/peaks.py NAME=JSON ...

prints a line of JSON: NAME -> bytes of resident memory at the peak over what the process held
before the network was built. JSON: ``model`` (a segmentor's config), ``crop``, ``images``,
``engine``, ``ranks``, ``optimizer``; as ``engine.train`` puts a run together. The allocator returns
memory at once (start with MALLOC_MMAP_THRESHOLD_=65536).
"""
import gc
import json
import multiprocessing
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from mmcv import ConfigDict
from mmcv.runner import build_optimizer

import mmseg_custom  # noqa: F401 - registers, before mmseg

from mmseg.models import build_segmentor  # isort: skip
from helpers.commands import free_port

from mmseg_custom.distributed.options import Engine
from mmseg_custom.distributed.parallelize import parallelize
from mmseg_custom.distributed.precision import apply_precision

STEPS = 3


def memory_bytes(field: str) -> int:
    """A field of /proc/self/status."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ':')) * 1024


def warm_up(case: dict) -> None:
    """Makes the libraries allocate what they keep: a step on an image of four patches."""
    model = build_segmentor(ConfigDict(case['model']))
    apply_precision(model, torch.bfloat16, 'cpu')
    batch = dict(img=torch.randn(2, 3, 28, 28), img_metas=[{}] * 2,
                 gt_semantic_seg=torch.randint(150, (2, 1, 28, 28)))
    model.train().train_step(batch, None)['loss'].backward()


def steps(case: dict, rank: int, port: str, results) -> None:
    """One process of a case."""
    torch.set_num_threads(1)
    warm_up(case)
    gc.collect()
    if case['engine'] != 'single':
        dist.init_process_group('gloo', f'tcp://127.0.0.1:{port}', rank=rank,
                                world_size=case['ranks'])
    before = memory_bytes('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')  # the peak starts anew
    torch.manual_seed(0)
    model = build_segmentor(ConfigDict(case['model']))
    apply_precision(model, torch.bfloat16, 'cpu', store=case['engine'] != 'fsdp2')
    model = parallelize(model, 'cpu', Engine(type=case['engine'])).train()
    optimizer = build_optimizer(model, ConfigDict(case['optimizer']))
    shape = case['images'], 3, *case['crop']
    for _ in range(STEPS):
        batch = dict(img=torch.randn(shape), img_metas=[{}] * shape[0],
                     gt_semantic_seg=torch.randint(150, (shape[0], 1, *shape[2:])))
        optimizer.zero_grad()
        model.train_step(batch, optimizer)['loss'].backward()
        optimizer.step()
    results.put(memory_bytes('VmHWM') - before)
    if dist.is_initialized():
        dist.destroy_process_group()


def measure(case: dict) -> int:
    """The largest peak over the processes of a case."""
    context = multiprocessing.get_context('fork')
    results, port = context.Queue(), free_port()
    processes = [context.Process(target=steps, args=(case, rank, port, results))
                 for rank in range(case['ranks'])]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert not any(process.exitcode for process in processes)
    return max(results.get() for _ in processes)


def main() -> None:
    cases = dict(argument.split('=', 1) for argument in sys.argv[1:])
    print(json.dumps({name: measure(json.loads(text)) for name, text in cases.items()}))


if __name__ == '__main__':
    main()
