"""Heads beside each other: parameters, operations, memory and time of a training step.

Operations and memory are counted on fake tensors (benchmarks/head_costs.py), at the shapes of
InternViT-6B and 300M, for crops of 504x504 pixels. A step goes from the frozen feature maps on:
UPerNet's has its feature pyramid and its auxiliary head, EoMT's the last four blocks, which are
tuned. Labels are assumed to show 16 classes a crop; the matching itself, which works on values, is
in the times alone. Times are those of forward and backward pass with the losses, without the
optimizer, in turns, of heads that compute in bfloat16 as far as ``head_precision='bf16'`` says. On
the CPU crops have half the side, and the time is that of the process's own clock.

    python -m benchmarks heads_compared
"""
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.context import Context, at_most
from benchmarks.head_costs import (
    EOMT,
    HEADS,
    PLAIN_MASK,
    UPERNET,
    HeadCost,
    batch_of,
    config_of_head,
    cost_of_head,
    loss_of,
    trained_part,
)
from benchmarks.networks import fill
from benchmarks.registry import benchmark
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.units import GIB

SIZES = {'6b': 'InternViT-6B', '300m': 'InternViT-300M'}
TINY_SIZES = {'tiny': 'the tiny network'}
CROPS = 2  # of a step whose memory is predicted
HALF = 0.5  # of UPerNet's operations
HEADER = ('| head | million parameters | TFLOP forward | TFLOP backward | of UPerNet | GiB |',
          '|---|---|---|---|---|---|')


@benchmark('A step of the heads: parameters, operations, memory and time', minutes=20, suite=())
def case(run: Context) -> None:
    """Counts all heads at both sizes, and measures them at that of InternViT-6B."""
    for size, name in (TINY_SIZES if run.tiny else SIZES).items():
        costs = {head: cost_of_head(head, size, CROPS) for head in HEADS}
        _add_costs(run, name, costs)
        print('\n'.join(table(costs)), flush=True)
        run.fact(**{f'heads of {name}': {head: vars(cost) for head, cost in costs.items()}})
    _add_times(run)


def table(costs: dict[str, HeadCost]) -> list[str]:
    """Returns the lines of a table of docs/heads.md."""
    return [*HEADER, *(
        f'| {head} | {cost.parameters / 1e6:.1f} | {cost.forward / 1e12:.3f} | '
        f'{cost.backward / 1e12:.3f} | {cost.flops / costs[UPERNET].flops:.1%} | '
        f'{cost.peak / GIB:.1f} |' for head, cost in costs.items())]


def _add_costs(run: Context, network: str, costs: dict[str, HeadCost]) -> None:
    """Adds operations and memory of each head beside those of UPerNet."""
    reference = costs[UPERNET]
    for head, cost in costs.items():
        if head == UPERNET:
            continue
        is_ours = head == PLAIN_MASK
        run.row(f'operations of a step of {head} over {network}', 'GFLOP', cost.flops / 1e9,
                {UPERNET: reference.flops / 1e9}, targets=[at_most(UPERNET, HALF)] * is_ours,
                notes='one crop, from the frozen feature maps on; counted')
        run.row(f'memory of a step of {head} over {network}', 'GiB', cost.peak,
                {UPERNET: reference.peak}, targets=[at_most(UPERNET, 1.0)] * is_ours,
                notes=f'{CROPS} crops, without the frozen blocks; predicted for a GPU')


def _add_times(run: Context) -> None:
    """Adds the time of a step of each head on feature maps of InternViT-6B's width."""
    heads = [head for head in HEADS if head != EOMT]  # the most of whose step are blocks
    steps = {head: _step(run, head) for head in heads}
    if run.on_gpu:
        times = run.measure(steps, rounds=3)
    else:  # UPerNet's step takes minutes, and the clock is that of the process
        times = run.measure(steps, seconds=0.1, rounds=2, warm_up=0, clock='cpu')
    words = 'time' if run.on_gpu else 'CPU time'
    for head in heads:
        if head != UPERNET:
            run.row(f'{words} of a step of {head}', 'ms', times[head], {UPERNET: times[UPERNET]},
                    targets=[at_most(UPERNET, HALF)] * (head == PLAIN_MASK),
                    notes=f'{CROPS} crops of {_side(run)} x {_side(run)} pixels, at the width of '
                          'InternViT-6B, bfloat16')


def _side(run: Context) -> int:
    """Returns the side of a crop whose step is measured, in pixels."""
    return 112 if run.tiny else 504 if run.on_gpu else 252


def _step(run: Context, head: str) -> Callable[[], None]:
    """Returns a function that computes the losses of a head, and all its gradients."""
    cfg = config_of_head(head, 'tiny' if run.tiny else '6b')
    cfg.model.test_cfg.crop_size = (_side(run), _side(run))
    model = fill(trained_part(cfg), run.device)
    apply_precision(model, torch.bfloat16, run.device, head_dtype=torch.bfloat16)
    generator = torch.Generator(run.device).manual_seed(1)
    draw = partial(torch.randn, generator=generator, device=run.device)
    batch = {name: value.to(run.device) if isinstance(value, Tensor) else value
             for name, value in batch_of(model, cfg, CROPS, draw).items()}

    def step() -> None:
        model.zero_grad(set_to_none=True)
        loss_of(model, batch).backward()
    return step
