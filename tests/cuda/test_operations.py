"""What a step of full tuning launches and moves on a simulated device, by part of the step.

    python -m pytest -s tests/cuda/test_operations.py

prints the table of docs/gpu.md. Calls stand for launches: one of torch's foreach operations launches
a kernel for some dozens of tensors.
"""
from collections import Counter

import torch
from helpers.fake_cuda import on_cuda
from helpers.fake_runs import prepared, recipe, train
from mmcv.runner import Hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmseg_custom.distributed.parallelize import unwrap
from mmseg_custom.doctor.depth import track_sites

aten = torch.ops.aten
EDGE, INNER = 2, 1  # block 1 is one of the first two, whose sites are told apart
KINDS = {'cast': ['_to_copy'], 'product': ['mm', 'addmm', 'bmm'], 'attention': ['attention'],
         'norm': ['norm'], 'convolution': ['convolution'],
         'copy': ['clone', 'copy_', 'cat', 'slice_backward', 'select_backward']}


class Operations(TorchDispatchMode):
    """Counts calls and bytes of the operations on the device: (part, kind) -> number."""

    def __init__(self):
        super().__init__()
        self.kind, self._site = '', ('', 0)
        self.calls, self.moved = Counter(), Counter()
        self.names = Counter()

    def enter_site(self, phase: str, number: int = 0) -> None:
        self._site = phase, number

    def part(self) -> str:
        phase, number = self._site
        in_backward = torch._C._current_graph_task_id() != -1
        if not in_backward and phase == 'backward':
            return 'optimizer'
        where = f'block {number}' if 0 <= number < EDGE else 'other blocks and heads'
        if not in_backward:
            return f'forward, {where}'
        if phase == 'forward':
            return 'backward, other blocks and heads'
        return f'{"recomputed" if torch.is_grad_enabled() else "backward"}, {where}'

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        name = func._overloadpacket.__name__
        if func.is_view or 'empty' in name or name in ('detach', 'device', 'is_pinned') or not any(
                t.device.type == 'cuda' for t in tensors):
            return out
        key = self.part(), kind_of(name)
        self.calls[key] += 1
        self.moved[key] += sum(t.nbytes for t in tensors)
        self.names[(*key, name)] += 1
        return out


def kind_of(name: str) -> str:
    return next((kind for kind, parts in KINDS.items() if any(
        part == name or kind in ('attention', 'norm', 'convolution') and part in name
        for part in parts)), 'elementwise')


class LastIteration(Hook):
    """Keeps the counts of the last iteration alone."""

    def __init__(self, seen: Operations):
        self.seen = seen

    def before_train_iter(self, runner):
        for counts in (self.seen.calls, self.seen.moved, self.seen.names):
            counts.clear()


def test_a_block_casts_each_weight_once_a_pass(cuda, tmp_path):
    operations, sites = Operations(), []

    def track(runner):
        model = unwrap(runner.model)
        sites.append(track_sites(model, operations, EDGE))
        sites[0].__enter__()
        sites.append(sum(p.requires_grad for p in model.backbone.blocks[INNER].parameters()))

    run = prepared(recipe('full tuning'), tmp_path / 'run')
    with on_cuda(operations) as seen:
        train(run, seen, [LastIteration(operations)], before=track)
        sites[0].__exit__(None, None, None)
    for part in sorted({part for part, _ in operations.calls}):
        print(f'\n{part}:', ', '.join(
            f'{kind} {count} ({operations.moved[part, kind] / 1e6:.0f} MB)'
            for (where, kind), count in sorted(operations.calls.items()) if where == part))
    weights, block = sites[1], f'block {INNER}'
    for name, count in sorted(operations.names.items()):
        if block in name[0]:
            print(name, count)
    for phase in ('forward', 'recomputed', 'backward'):
        assert operations.calls[f'{phase}, {block}', 'cast'] == weights
