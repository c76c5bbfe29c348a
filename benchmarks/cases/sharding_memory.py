"""Memory of weights, gradients and optimizer state a process, whole and sharded by FSDP2.

Trains four blocks of InternViT of the real width and a linear head for one step on the CPU: once in
one process, once in two with FSDP2. The bytes are those of the tensors that each process holds
after it (its shards); the peak is of resident memory from the first layer built to the end of the
step, over what the process held before. It takes 10 GB of memory. The facts have what the recipes
of InternViT-6B take, from the arithmetic that the measured run is compared with.
"""
import multiprocessing
import resource
import socket
from collections import Counter
from pathlib import Path

import torch
import torch.distributed as dist
from mmcv import Config
from mmseg.models import build_segmentor
from torch.distributed.tensor import DTensor

from benchmarks.context import Context, at_most, within
from benchmarks.execution import ROOT
from benchmarks.registry import benchmark
from mmseg_custom.distributed.memory import state_bytes, storage_of
from mmseg_custom.distributed.options import AUTO
from mmseg_custom.engine.batch import Batch
from mmseg_custom.engine.build import build_model
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.run import Run

RECIPES = ROOT / 'configs/intern_vit_6b'
ONE, ARITHMETIC = 'one process', 'the arithmetic'
RANKS, WIDTH, DEPTH = 2, 3200, 4
SIDE, CLASSES = 56, 150  # pixels of the image; classes
PARTS = ('weights', 'gradients', 'optimizer')
HEADS_PER_WIDTH = 128  # of InternViT-6B: 25 heads at width 3200
LIMIT = 0.55  # of one process, for two


def config(width: int, depth: int) -> Config:
    """Blocks of this width and a linear head; all of it is trained."""
    return Config(dict(model=dict(
        type='EncoderDecoder',
        backbone=dict(type='InternViT6B', embed_dim=width, depth=depth,
                      num_heads=max(width // HEADS_PER_WIDTH, 1), img_size=SIDE,
                      out_indices=[depth - 1]),
        decode_head=dict(type='FCNHead', in_channels=width, channels=width, num_convs=0,
                         concat_input=False, with_norm=True, num_classes=CLASSES,
                         dropout_ratio=0.0),
        test_cfg=dict(mode='whole'))))


def own_bytes(tensor: torch.Tensor) -> int:
    """Bytes of a tensor, or of this process's share of it."""
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.nbytes


def measure(rank: int, ranks: int, width: int, port: int, results) -> None:
    """One process of a run: trains, counts, and puts its figures into the queue."""
    torch.set_num_threads(1)
    if ranks > 1:
        dist.init_process_group('gloo', f'tcp://127.0.0.1:{port}', rank=rank, world_size=ranks)
    before = resident_bytes()
    torch.manual_seed(0)
    model = build_model(Run(config(width, DEPTH), RunOptions(), AUTO, Batch(1, ranks)))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-5, foreach=False)
    images = torch.randn(1, 3, SIDE, SIDE)
    labels = torch.randint(CLASSES, (1, 1, SIDE, SIDE))
    batch = dict(img=images, gt_semantic_seg=labels, img_metas=[{}])
    model.train_step(batch, optimizer)['loss'].backward()
    optimizer.step()
    figures = Counter()
    for parameter in model.parameters():
        figures['weights'] += own_bytes(parameter)
        figures['gradients'] += own_bytes(parameter.grad)
        figures['optimizer'] += sum(own_bytes(value) for value in
                                    optimizer.state[parameter].values())
    figures['peak'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    results.put(dict(figures))
    if dist.is_initialized():
        dist.destroy_process_group()


def resident_bytes() -> int:
    """What the process holds now."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * resource.getpagesize()


def measure_processes(ranks: int, width: int) -> dict[str, int]:
    """Returns the largest figures over the processes of a run."""
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    processes = [context.Process(target=measure, args=(rank, ranks, width, port, results))
                 for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError(f'exit codes of the processes: {[p.exitcode for p in processes]}')
    figures = [results.get() for _ in range(ranks)]
    return {name: max(f[name] for f in figures) for name in figures[0]}


def predict() -> dict[str, float]:
    """Returns the GiB that the recipes of InternViT-6B take on a GPU, without activations."""
    low, found = dict(type='LowMemoryAdamW'), {}
    for recipe, gpus, optimizer in (
            ('linear_probing', (1,), {}), ('head_tuning', (1,), {}),
            ('few_shot', (1, 8, 32), {}), ('full_tuning', (1, 8, 32), {}),
            ('few_shot', (1, 2, 8), low), ('full_tuning', (1, 2, 8), low)):
        cfg = Config.fromfile(sorted((RECIPES / recipe).glob('*.py'))[0])
        cfg.model.backbone.pretrained = None
        cfg.model.test_cfg = None
        with torch.device('meta'):
            model = build_segmentor(cfg.model)
        storage = storage_of({**cfg.optimizer, **optimizer})
        for count in gpus:
            states = state_bytes(model, 'fsdp2' if count > 1 else 'single', count,
                                 storage=storage)
            parts = {name: round(size / 2**30, 2) for name, size in states._asdict().items()}
            found[f'{recipe}, {optimizer.get("type", "AdamW")}, {count} GPUs'] = dict(
                parts, sum=round(sum(states) / 2**30, 2))
    return found


def predicted(ranks: int, width: int) -> dict[str, int]:
    """Returns what the arithmetic says of a measured run."""
    with torch.device('meta'):
        model = build_segmentor(config(width, DEPTH).model)
    states = state_bytes(model, 'fsdp2' if ranks > 1 else 'single', ranks)
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    return dict(weights=states.master_weights + states.frozen - buffers, gradients=states.gradients,
                optimizer=states.optimizer)


@benchmark('Memory of weights, gradients and optimizer state a process, whole and sharded',
           minutes=6, devices=('cpu',), suite=())
def case(run: Context) -> None:
    """Measures one process and two."""
    width = 128 if run.tiny else WIDTH
    whole, sharded = (measure_processes(ranks, width) for ranks in (1, RANKS))
    expected = predicted(RANKS, width)
    for name in (*PARTS, 'peak'):
        references = {ONE: whole[name]}
        if name in expected:
            references[ARITHMETIC] = expected[name]
        targets = [within(ARITHMETIC, 0.02)] if name in expected else [at_most(ONE, LIMIT)]
        run.row(f'{name}, in each of {RANKS} processes', 'MiB', sharded[name], references,
                targets=targets)
    run.fact(predicted_gib_of_recipes=predict())
