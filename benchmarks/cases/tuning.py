"""Linear probe, last blocks, LoRA and full tuning on the tiny transfer task, over five seeds.

The task is that of benchmarks/transfer.py. All have the linear head, 150 iterations and the same
images; the learning rate is chosen for each, with a seed and on images that are used for that
alone. An interval is the mean's 95 % over seeds (Student's t); differences are of the same seed.

    python -m benchmarks tuning --minutes 90

The data and the pretrained backbone stay in the folder of the results, for a second run.
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
    found = task.score([Job(METHODS[name], rates[name], seed)
                        for name in METHODS for seed in seeds])
    scores = {name: found[i * len(seeds):(i + 1) * len(seeds)] for i, name in enumerate(METHODS)}
    means = {name: Mean.of(values) for name, values in scores.items()}
    for name, targets in ((PROBE, ()), (LAST, [at_least(PROBE, 1)]), (LORA, [at_least(PROBE, 1)]),
                          (FULL, [at_least(LAST, 1), at_least(LORA, 1)])):
        others = {other: mean.value for other, mean in means.items() if other != name}
        run.row(f'mean mIoU, {name}', '%', means[name].value, others, targets=targets,
                higher_is_better=True,
                notes=f'{means[name]:.2f} at 95 %, learning rate {rates[name]:g}')
    gains = {name: means[name].value - means[PROBE].value for name in (LORA, FULL)}
    run.row(f'mean mIoU over the {PROBE}, {LORA}', '%', gains[LORA], {FULL: gains[FULL]},
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
