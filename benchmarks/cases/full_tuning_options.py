"""Full tuning in one process: what recomputing all blocks costs, against what memory asks for.

The form is that of full_tuning.py: the recipe, or the largest part of it that fits. Steps with
`engine.checkpoint_every=1` and with 'auto' are measured one after the other, because together their
optimizer states would not fit, each beside the matrix product. Both start from the same weights and
crops, so that the losses of their first steps are to be equal. On the CPU 'auto' stands for no
recomputation.
"""
import math

import torch

from benchmarks.cases.full_tuning import choose
from benchmarks.context import Context, within
from benchmarks.networks import matmul
from benchmarks.registry import benchmark
from benchmarks.steps import DOCTOR, FIRST_STEPS, TOLERANCE, limit_of
from benchmarks.training import (
    config_of,
    engine_of,
    free_memory,
    needed_flops,
    predict,
    training,
)

ALL, AUTO = 'all blocks recomputed', "checkpoint_every='auto'"
SAME = 1e-3  # of losses, whose kernels may add up in any order


@benchmark('Full tuning, recomputing all blocks or only as many as the memory asks for',
           minutes=2.5, suite=('cuda',), order=25)
def case(run: Context) -> None:
    """Measures steps, their share of the matrix product's rate, and their memory."""
    _, form, _ = choose(run)
    run.fact(changes=form)
    free_memory()
    everything = measure(run, ALL, {**form, 'engine.checkpoint_every': 1}, None)
    free_memory()
    automatic = config_of('full_tuning', run, **form, **{'engine.checkpoint_every': 'auto'})
    blocks = engine_of(automatic, run).checkpoint_blocks or 0  # predicted once
    measure(run, AUTO, {**form, 'engine.checkpoint_blocks': blocks}, everything)
    losses = [run.result.facts[f'first loss, {title}'] for title in (ALL, AUTO)]
    if not math.isclose(*losses, rel_tol=SAME):
        run.wrong(f'the losses of the first steps are {losses[0]} and {losses[1]}')


def measure(run: Context, title: str, settings: dict, before: list[float] | None) -> list[float]:
    """Adds the rows of one way to run a step; returns its samples in seconds."""
    cfg = config_of('full_tuning', run, **settings)
    predicted, _ = predict(cfg, run)
    torch.manual_seed(0)
    with training(cfg, run, predicted) as trained:
        trained.step()
        run.fact(**{f'first loss, {title}': trained.loss(),
                    f'recomputed blocks, {title}': predicted.blocks})
        for _ in range(0 if run.tiny else FIRST_STEPS - 1):
            trained.step()
        if run.on_gpu:
            run.row(f'peak memory, {title}', 'GiB', run.peak_memory(trained.step),
                    {DOCTOR: predicted.peak}, targets=[within(DOCTOR, TOLERANCE)])
        product, flops = matmul(run)
        times = run.measure({'ours': trained.step, 'product': product},
                            rounds=5 if run.on_gpu else 3)
        rate = flops / sorted(times['product'])[len(times['product']) // 2]
        run.row(f'step, {title}', 'ms', times['ours'], {ALL: before} if before else {},
                limit=needed_flops(cfg, run) / rate, targets=[limit_of(0.45)])
        run.profile(f'step, {title}', trained.step)
    return times['ours']
