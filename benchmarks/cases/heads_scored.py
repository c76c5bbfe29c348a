"""Linear head, UPerNet and PlainMaskHead on a frozen tiny backbone: mIoU over five seeds.

The tasks are those of benchmarks/head_runs.py. All heads have the same iterations and images. Each
has the best of the same learning rates, with a seed that is used for that alone; of the rooms also
on other images than those that are scored. Intervals of means are 95 % over seeds (Student's t).
The difference of PlainMaskHead and UPerNet is that of the paired bootstrap over images, whose
pixels are added up over the seeds.

    python -m benchmarks heads_scored --minutes 60
"""
from dataclasses import replace

from benchmarks.context import Context, at_least
from benchmarks.head_costs import LINEAR, PLAIN_MASK, UPERNET
from benchmarks.head_runs import (
    CONFIGS,
    DEMO,
    ROOMS,
    HeadTask,
    Job,
    compare_heads,
    mean_miou,
    miou,
    task_of,
)
from benchmarks.intervals import Mean, differences
from benchmarks.registry import benchmark
from benchmarks.transfer import SEEDS
from mmseg_custom.evaluation.bootstrap import Comparison

ITERATIONS = 150
TINY_ITERATIONS = 2
LONGER = 2.0  # that the second task takes, at most, of the time of the first
HEADER = ('| head | learning rate | mIoU | over UPerNet |', '|---|---|---|---|')


@benchmark('Heads on a frozen tiny backbone: mIoU over 5 seeds', minutes=60, suite=())
def case(run: Context) -> None:
    """Trains and tests all heads on each task."""
    spent = 0.0
    for name in (ROOMS, DEMO):
        start = run.time_left()
        if name == DEMO and start < spent * LONGER:
            run.missing(f'mean mIoU of {PLAIN_MASK}, {name}', 'no time was left: --minutes')
            break
        task = task_of(name, run, TINY_ITERATIONS if run.tiny else ITERATIONS)
        _measure(run, name, replace(task, rates=task.rates[:1]) if run.tiny else task)
        spent = start - run.time_left()


def _measure(run: Context, name: str, task: HeadTask) -> None:
    """Measures the heads on a task, and adds their rows."""
    heads, seeds = list(CONFIGS[name]), SEEDS[:2] if run.tiny else SEEDS
    tried = task.choose_rates(heads)
    rates = {head: max(scores, key=scores.__getitem__) for head, scores in tried.items()}
    jobs = [Job(head, rates[head], seed) for head in heads for seed in seeds]
    found = task.run(jobs)
    runs = {head: found[i * len(seeds):(i + 1) * len(seeds)] for i, head in enumerate(heads)}
    comparison = compare_heads(runs[PLAIN_MASK], runs[UPERNET])
    means = {head: mean_miou(each) for head, each in runs.items()}
    for head in (LINEAR, PLAIN_MASK):
        run.row(f'mean mIoU of {head}, {name}', '%', means[head].value,
                {UPERNET: means[UPERNET].value}, higher_is_better=True,
                targets=[at_least(UPERNET, 1)] * (head == PLAIN_MASK),
                notes=f'{means[head]:.2f} at 95 %, learning rate {rates[head]:g}; UPerNet '
                      f'{means[UPERNET]:.2f}, {rates[UPERNET]:g}')
    scores = {head: [round(miou(each.areas), 2) for each in found] for head, found in runs.items()}
    run.fact(**{f'{name}: tried': tried, f'{name}: scores': scores, f'{name}: rates': rates,
                f'{name}: bootstrap': describe(comparison)})
    print('\n'.join(table(scores, rates)), flush=True)


def describe(comparison: Comparison) -> dict[str, float]:
    """Returns the difference in points of mIoU, the ends of its interval, and p."""
    low, high = (round(100 * end, 2) for end in comparison.miou_range)
    return dict(difference=round(100 * comparison.miou, 2), low=low, high=high,
                p=round(comparison.miou_p, 4))


def table(scores: dict[str, list[float]], rates: dict[str, float]) -> list[str]:
    """Returns the lines of a table of docs/heads.md."""
    lines = [*HEADER]
    for head, values in scores.items():
        over = '' if head == UPERNET else f'{Mean.of(differences(values, scores[UPERNET])):+.2f}'
        lines.append(f'| {head} | {rates[head]:g} | {Mean.of(values):.2f} | {over} |')
    return lines
