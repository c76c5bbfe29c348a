"""What a step of full tuning launches and moves on a simulated device, by part of the step.

    python -m pytest -s tests/cuda/test_operations.py

prints the rows of the table in docs/gpu.md. A call stands for a launch, but one of torch's foreach
operations launches a kernel for some dozens of tensors.
"""
from collections import Counter

import torch
from helpers.fake_cuda import on_cuda
from helpers.fake_runs import prepared, recipe, train
from mmcv.runner import Hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmseg_custom.distributed.parallelize import unwrap
from mmseg_custom.doctor.sites import block_sites, track_sites

aten = torch.ops.aten
EDGE, INNER = 2, 1  # block 1 is one of the first two, whose sites are told apart
FIRST = [f'block {number}' for number in range(EDGE)]
KINDS = {'cast': ['_to_copy'], 'product': ['mm', 'addmm', 'bmm'], 'attention': ['attention'],
         'norm': ['norm'], 'convolution': ['convolution'],
         'copy': ['clone', 'copy_', 'cat', 'slice_backward', 'select_backward']}
NO_WORK = ('detach', 'device', 'is_pinned', '_unsafe_view')
MOST = dict(forward=33, recomputed=31, backward=41)  # calls of a block with drop path


class Operations(TorchDispatchMode):
    """Counts calls and bytes of the operations on the device: (part, kind) -> number."""

    def __init__(self):
        super().__init__()
        self.kind, self._site = '', ('', '')
        self.calls, self.moved = Counter(), Counter()

    def enter_site(self, phase: str, part: str = '') -> None:
        self._site = phase, part

    def part(self) -> str:
        phase, part = self._site
        in_backward = torch._C._current_graph_task_id() != -1
        if not in_backward and phase == 'backward':
            return 'optimizer'
        where = part.partition(', ')[2]
        where = where if where in FIRST else 'other blocks and heads'
        if not in_backward:
            return f'forward, {where}'
        if phase == 'forward':  # the backward pass of the heads, up to the last block's
            where = 'other blocks and heads'
        return f'{"recomputed" if torch.is_grad_enabled() else "backward"}, {where}'

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        name = func._overloadpacket.__name__
        if func.is_view or 'empty' in name or name in NO_WORK or not any(
                t.device.type == 'cuda' for t in tensors):
            return out
        key = self.part(), kind_of(name)
        self.calls[key] += 1
        self.moved[key] += sum(t.nbytes for t in tensors)
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
        self.seen.calls.clear()
        self.seen.moved.clear()


def _print(operations: Operations, blocks: int) -> None:
    """Prints each part of a block, and what is left of a step without its blocks."""
    for phase in ('forward', 'recomputed', 'backward', 'optimizer'):
        of_block = f'{phase}, block {INNER}'
        for part, sites in ((of_block, {of_block: 1}),
                            (f'{phase}, all but the blocks', {
                                phase: 1, f'{phase}, other blocks and heads': 1,
                                f'{phase}, block 0': 0, of_block: -(blocks - EDGE)})):
            rows = Counter()
            for (where, kind), count in operations.calls.items():
                rows[kind] += count * sites.get(where, 0)
            found = {kind: sum(operations.moved[where, kind] * times
                               for where, times in sites.items()) / 1e6
                     for kind, count in rows.items() if count}
            print(f'{part}:', ', '.join(f'{kind} {rows[kind]} ({moved:.0f} MB)'
                                        for kind, moved in sorted(found.items())))


def test_a_block_casts_each_weight_once_a_pass(cuda, tmp_path):
    operations, sites = Operations(), []

    def track(runner):
        model = unwrap(runner.model)
        blocks = max(model.backbone.out_indices) + 1
        sites.append(track_sites(model, operations, block_sites([blocks], EDGE)))
        sites[0].__enter__()
        sites.append(sum(p.requires_grad for p in model.backbone.blocks[INNER].parameters()))

    run = prepared(recipe('full tuning'), tmp_path / 'run')
    with on_cuda(operations) as seen:
        train(run, seen, [LastIteration(operations)], before=track)
        sites[0].__exit__(None, None, None)
    _print(operations, max(run.cfg.model.backbone.out_indices) + 1)
    weights, block = sites[1], f'block {INNER}'
    for phase, products in (('forward', 4), ('recomputed', 4), ('backward', 8)):
        counts = {kind: count for (part, kind), count in operations.calls.items()
                  if part == f'{phase}, {block}'}
        assert counts['cast'] == weights, phase  # neither inputs nor outputs
        assert counts['product'] == products and counts['attention'] == 1
        assert counts.get('copy', 0) == (phase == 'backward')  # of q, k and v into one
        assert sum(counts.values()) <= MOST[phase], counts
