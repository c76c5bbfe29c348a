"""What the host does in a training step beside the network, for InternViT-6B.

None of it depends on the size of a weight, so that modules are on the meta device and shards are
small: a GPU computes them at once, and what is left is the host's time. The optimizer's rows are
those of rank 0 of 8 under FSDP2; a step sends nothing, so that no other rank is needed.
"""
from collections.abc import Callable, Iterator
from itertools import cycle

import torch
import torch.distributed as dist
from mmcv.parallel import DataContainer
from mmcv.parallel.scatter_gather import scatter_kwargs
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from benchmarks.context import Context
from benchmarks.networks import crop_of, random_images, recipe
from benchmarks.registry import benchmark
from mmseg_custom.engine.build import build_network
from mmseg_custom.engine.copied_ahead import copied_ahead
from mmseg_custom.engine.training_mode import TrainingMode
from mmseg_custom.optim.local_shards import take_step

RANKS = 8
SHARD = 16  # elements along each axis of a rank's shard
PARTS = 98  # groups of layer decay


def training_modes(run: Context) -> None:
    """Measures what sets a model's training mode, where nothing has changed."""
    model = build_network(recipe('linear_probing', run), on_meta=True)
    mode = TrainingMode()
    times = run.measure({'ours': lambda: mode.enter(model), 'train()': model.train}, clock='cpu')
    run.row('training mode of linear probing', 'ms', times['ours'], {'train()': times['train()']},
            notes=f'{len(list(model.modules()))} modules, CPU time')


def sharded_parameters(run: Context, mesh: DeviceMesh) -> list[nn.Parameter]:
    """Returns parameters like those of full tuning in number and axes, with gradients."""
    model = build_network(recipe('full_tuning', run), on_meta=True)
    found = []
    for parameter in model.parameters():
        shape = [SHARD * RANKS, *[SHARD] * (parameter.ndim - 1)]
        values, gradient = (DTensor.from_local(
            torch.randn(SHARD, *shape[1:], device=run.device), mesh, [Shard(0)], run_check=False)
            for _ in range(2))
        found.append(nn.Parameter(values))
        found[-1].grad = gradient
    return found


def stepping(parameters: list[nn.Parameter], step: Callable, **options) -> Callable[[], object]:
    """Returns a step of an AdamW of its own on parameters, in groups as by layer decay."""
    optimizer = torch.optim.AdamW([dict(params=parameters[i::PARTS]) for i in range(PARTS)
                                   if parameters[i::PARTS]], lr=1e-8, **options)
    return lambda: step(optimizer)


def optimizer_steps(run: Context) -> None:
    """Measures AdamW over sharded tensors and over the shards themselves."""
    dist.init_process_group('fake', rank=0, world_size=RANKS, store=FakeStore())
    try:
        parameters = sharded_parameters(run, init_device_mesh(run.device, (RANKS,)))
        ways = {'foreach': dict(foreach=True), 'fused': dict(fused=True)}
        work = {f'{name}, {on}': stepping(parameters, step, **options)
                for name, options in ways.items()
                for on, step in (('shards', take_step),
                                 ('sharded tensors', lambda optimizer: optimizer.step()))}
        times = run.measure(work, rounds=3)
    finally:
        dist.destroy_process_group()
    for name in ways:
        run.row(f'AdamW of full tuning, {name}', 'ms', times[f'{name}, shards'],
                {'sharded tensors': times[f'{name}, sharded tensors']},
                notes=f'{len(parameters)} weights, the host of one of {RANKS} ranks')


def batches(run: Context, pinned: bool) -> Iterator[dict]:
    """Yields the same batch of linear probing again and again, in pinned memory or not."""
    crop = crop_of(recipe('linear_probing', run))
    tensors = dict(img=random_images('cpu', 2, 3, *crop),
                   gt_semantic_seg=torch.zeros(2, 1, *crop, dtype=torch.long))
    return cycle([{name: DataContainer([x.pin_memory() if pinned else x], stack=True)
                   for name, x in tensors.items()}])


def batch_copies(run: Context) -> None:
    """Measures how long the host takes for a batch that goes to the GPU."""
    title = 'a batch to the device, the host'
    if not run.on_gpu:
        run.missing(title, 'there is no copy on the CPU')
        return
    ours, pageable = iter(copied_ahead(batches(run, True), 'cuda')), batches(run, False)
    times = run.measure({'ours': lambda: next(ours), 'mmcv, not pinned': lambda: scatter_kwargs(
        (next(pageable),), {}, [torch.cuda.current_device()])}, clock='cpu')
    run.row(title, 'ms', times['ours'], {'mmcv, not pinned': times['mmcv, not pinned']},
            notes='CPU time of two crops')


@benchmark('What the host does in a step: training mode, optimizer over shards, batches',
           minutes=1.5, order=46)
def case(run: Context) -> None:
    """Measures the parts one after the other."""
    training_modes(run)
    optimizer_steps(run)
    batch_copies(run)
