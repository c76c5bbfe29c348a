"""Linear probe, last blocks, LoRA and full tuning on the tiny transfer task, over five seeds.

The task is that of benchmarks/transfer.py. All have the linear head, 150 iterations and the same
images; the learning rate is chosen for each, with a seed and on images that are used for that
alone. An interval is the mean's 95 % over seeds (Student's t); differences are of the same seed.

    python -m benchmarks tuning --minutes 90

On two idle cores it computes for about 12 minutes. The data and the pretrained backbone stay in the
folder of the results, which a second run goes on from.
"""
import mmseg_custom  # noqa: F401 - registers what the config names

# isort: split
import torch
from mmcv import Config
from mmseg.models import build_segmentor

from benchmarks.context import Context, at_least
from benchmarks.execution import ROOT
from benchmarks.intervals import Mean, differences
from benchmarks.registry import benchmark
from benchmarks.transfer import CONFIG, METHODS, SEEDS, Job, Settings, prepare

PROBE, LAST, LORA, FULL = METHODS
HEADER = ('| trained | weights of the backbone | learning rate | mIoU | over the probe | share of '
          'the gap |', '|---|---|---|---|---|---|')


@benchmark('Probe, last blocks, LoRA and full tuning of a tiny backbone: mIoU over 5 seeds',
           minutes=90, suite=())
def case(run: Context) -> None:
    """Measures all methods, and what share of the gap between probe and full tuning they close."""
    task = prepare(run)
    run.fact(**{'mIoU of the pretraining, outdoors': round(task.pretrained_miou, 2)})
    rates = task.choose_rates(METHODS)
    seeds = SEEDS[:2] if run.tiny else SEEDS
    found = iter(task.score([Job(METHODS[name], rates[name], seed)
                             for name in METHODS for seed in seeds]))
    scores = {name: [next(found) for _ in seeds] for name in METHODS}
    for name, target in ((PROBE, ()), (LAST, [at_least(PROBE, 1)]), (LORA, [at_least(PROBE, 1)]),
                         (FULL, [at_least(LAST, 1), at_least(LORA, 1)])):
        others = {other: scores[other] for other in METHODS if other != name}
        run.row(f'mIoU, {name}', '%', scores[name], others, targets=target, higher_is_better=True,
                notes=f'mean and 95 %: {Mean.of(scores[name]):.2f}, learning rate {rates[name]:g}')
    gains = {name: differences(scores[name], scores[PROBE]) for name in (LORA, FULL)}
    run.row(f'mIoU over the {PROBE}, {LORA}', '%', gains[LORA], {FULL: gains[FULL]},
            targets=[at_least(FULL, 0.5)], higher_is_better=True)
    weights = {name: trained_weights(settings) for name, settings in METHODS.items()}
    run.fact(rates=rates, scores=scores, weights=weights)
    print('\n'.join(table(scores, rates, weights)), flush=True)


def table(scores: dict[str, list[float]], rates: dict[str, float],
          weights: dict[str, int]) -> list[str]:
    """Returns the lines of the table of docs/tuning.md."""
    gap = Mean.of(differences(scores[FULL], scores[PROBE])).value
    lines = [*HEADER]
    for name, values in scores.items():
        over = Mean.of(differences(values, scores[PROBE]))
        gains = '' if name == PROBE else f'{over:+.2f}'
        share = '' if name in (PROBE, FULL) else f'{over.value / gap:.0%}'
        lines.append(f'| {name} | {weights[name]:,} | {rates[name]:g} | {Mean.of(values):.2f} | '
                     f'{gains} | {share} |')
    return lines


def trained_weights(settings: Settings) -> int:
    """Counts the weights of the backbone that a method trains."""
    cfg = Config.fromfile(ROOT / CONFIG)
    cfg.merge_from_dict(dict(settings))
    with torch.device('meta'):
        backbone = build_segmentor(cfg.model).backbone
    return sum(weight.numel() for weight in backbone.parameters() if weight.requires_grad)
