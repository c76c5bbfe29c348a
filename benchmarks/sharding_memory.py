"""Memory of weights, gradients and optimizer state a process, whole and sharded by FSDP2.

    python benchmarks/sharding_memory.py [--width 3200 --depth 4 --ranks 2]

Trains blocks of InternViT and a linear head for one step on the CPU: once in one process, once in
``--ranks`` processes with FSDP2. The bytes are those of the tensors that each process holds after
it (its shards); the peak is of resident memory from the first layer built to the end of the step,
over what the process held before. The full-size run wants 10 GB of memory. ``--predict`` prints
what the recipes of InternViT-6B take, from the arithmetic that the measured run is compared with.
"""
import argparse
import multiprocessing
import resource
import socket
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from mmcv import Config  # noqa: E402
from mmseg.models import build_segmentor  # noqa: E402
from torch.distributed.tensor import DTensor  # noqa: E402

import mmseg_custom  # noqa: E402,F401 - before mmseg, which needs its stand-in
from mmseg_custom.distributed.memory import state_bytes, storage_of  # noqa: E402
from mmseg_custom.distributed.options import AUTO  # noqa: E402
from mmseg_custom.engine.batch import Batch  # noqa: E402
from mmseg_custom.engine.build import build_model  # noqa: E402
from mmseg_custom.engine.options import RunOptions  # noqa: E402
from mmseg_custom.engine.run import Run  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / 'configs/intern_vit_6b'
SIDE, CLASSES = 56, 150  # pixels of the image; classes
PARTS = ('weights', 'gradients', 'optimizer')
HEADS_PER_WIDTH = 128  # of InternViT-6B: 25 heads at width 3200
LIMIT = 0.55  # of one process, for two


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--width', type=int, default=3200)
    parser.add_argument('--depth', type=int, default=4)
    parser.add_argument('--ranks', type=int, default=2)
    parser.add_argument('--predict', action='store_true',
                        help='print what the recipes of InternViT-6B take instead')
    return parser.parse_args()


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


def measure(rank: int, ranks: int, args: argparse.Namespace, port: int, results) -> None:
    """One process of a run: trains, counts, and puts its figures into the queue."""
    torch.set_num_threads(1)
    if ranks > 1:
        dist.init_process_group('gloo', f'tcp://127.0.0.1:{port}', rank=rank, world_size=ranks)
    before = resident_bytes()
    torch.manual_seed(0)
    model = build_model(Run(config(args.width, args.depth), RunOptions(), AUTO, Batch(1, ranks)))
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


def run(ranks: int, args: argparse.Namespace) -> dict[str, int]:
    """The largest figures over the processes of a run."""
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    processes = [context.Process(target=measure, args=(rank, ranks, args, port, results))
                 for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit(f'a process failed: exit codes {[p.exitcode for p in processes]}')
    figures = [results.get() for _ in range(ranks)]
    return {name: max(f[name] for f in figures) for name in figures[0]}


def predict() -> None:
    """Prints the bytes of the recipes of InternViT-6B by part, a GPU."""
    print(f'{"recipe":<16}{"optimizer":<23}{"GPUs":>5}'
          + ''.join(f'{name:>15}' for name in ('frozen', 'master weights', 'gradients',
                                               'optimizer', 'working', 'GiB a GPU')))
    low = dict(type='LowMemoryAdamW')
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
            parts = [*states, sum(states)]
            print(f'{recipe:<16}{optimizer.get("type", "AdamW"):<23}{count:>5}'
                  + ''.join(f'{size / 2**30:>15.2f}' for size in parts))


def predicted(ranks: int, args: argparse.Namespace) -> dict[str, int]:
    """What the arithmetic says of a measured run."""
    with torch.device('meta'):
        model = build_segmentor(config(args.width, args.depth).model)
    states = state_bytes(model, 'fsdp2' if ranks > 1 else 'single', ranks)
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    return dict(weights=states.master_weights + states.frozen - buffers, gradients=states.gradients,
                optimizer=states.optimizer)


def main() -> None:
    """Measures or predicts."""
    args = parse_args()
    if args.predict:
        predict()
        return
    whole, sharded = run(1, args), run(args.ranks, args)
    expected = predicted(1, args), predicted(args.ranks, args)
    print(f'width {args.width}, depth {args.depth}: MiB in one process, in each of {args.ranks}, '
          'their ratio; both as predicted')
    for name in (*PARTS, 'peak'):
        print(f'{name:<12}{whole[name] / 2**20:>10.1f}{sharded[name] / 2**20:>10.1f}'
              f'{sharded[name] / whole[name]:>8.3f}'
              + ''.join(f'{e[name] / 2**20:>12.1f}' for e in expected if name in e))
    ratio = sum(sharded[n] for n in PARTS) / sum(whole[n] for n in PARTS)
    print(f'{"all parts":<12}{"":>20}{ratio:>8.3f}')
    if args.ranks == 2 and ratio > LIMIT:
        sys.exit(f'the ratio is above {LIMIT}')


if __name__ == '__main__':
    main()
