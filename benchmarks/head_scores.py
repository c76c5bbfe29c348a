"""Scores of heads on a frozen tiny backbone over seeds: learning rates, means and comparison."""
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mmseg_custom.evaluation.bootstrap import Comparison

from .context import Context, at_least
from .head_costs import LINEAR, PLAIN_MASK, UPERNET
from .head_runs import CONFIGS, HeadTask, Job, compare_heads, mean_miou, miou, task_of
from .intervals import Mean, differences
from .transfer import SEEDS

ITERATIONS, TINY_ITERATIONS = 150, 2
HEADER = ('| head | learning rate | mIoU | over UPerNet |', '|---|---|---|---|')


def score_heads(name: str, run: Context) -> None:
    """Trains and tests all heads on a task, each with its best learning rate; adds their rows.

    Args:
        name: Name of the task.
        run: The case.
    """
    task = task_of(name, run, TINY_ITERATIONS if run.tiny else ITERATIONS)
    tried = (replace(task, rates=task.rates[:1]) if run.tiny else task).choose_rates(CONFIGS[name])
    rates = {head: max(scores, key=scores.__getitem__) for head, scores in tried.items()}
    run.fact(**{f'{name}: tried': tried})
    _measure(run, name, task, rates)


def _measure(run: Context, name: str, task: HeadTask, rates: dict[str, float]) -> None:
    """Measures the heads on a task, and adds their rows."""
    seeds = SEEDS[:2] if run.tiny else SEEDS
    found = task.run([Job(head, rates[head], seed) for head in rates for seed in seeds])
    runs = {head: found[i * len(seeds):(i + 1) * len(seeds)] for i, head in enumerate(rates)}
    comparison = compare_heads(runs[PLAIN_MASK], runs[UPERNET])
    means = {head: mean_miou(each) for head, each in runs.items()}
    for head in (LINEAR, PLAIN_MASK):
        run.row(f'mean mIoU of {head}, {name}', '%', means[head].value,
                {UPERNET: means[UPERNET].value}, higher_is_better=True,
                targets=[at_least(UPERNET, 1)] * (head == PLAIN_MASK),
                notes=f'{means[head]:.2f} at 95 %, learning rate {rates[head]:g}; UPerNet '
                      f'{means[UPERNET]:.2f}, {rates[UPERNET]:g}')
    scores = {head: [round(miou(each.areas), 2) for each in found] for head, found in runs.items()}
    run.fact(**{f'{name}: scores': scores, f'{name}: rates': rates,
                f'{name}: bootstrap': describe(comparison)})
    print('\n'.join(table(scores, rates)), flush=True)


def describe(comparison: Comparison) -> dict[str, float]:
    """Returns the difference in points of mIoU, the ends of its interval, and p."""
    low, high = (round(100 * end, 2) for end in comparison.miou_range)
    return dict(difference=round(100 * comparison.miou, 2), low=low, high=high,
                p=round(comparison.miou_p, 4))


def table(scores: Mapping[str, Sequence[float]], rates: Mapping[str, float]) -> list[str]:
    """Returns the lines of a table of docs/heads.md."""
    lines = [*HEADER]
    for head, values in scores.items():
        over = '' if head == UPERNET else f'{Mean.of(differences(values, scores[UPERNET])):+.2f}'
        lines.append(f'| {head} | {rates[head]:g} | {Mean.of(values):.2f} | {over} |')
    return lines
