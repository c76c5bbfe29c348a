"""LoRA and last blocks over frozen blocks in int8 and fp8, beside bfloat16: maps, mIoU, bytes.

The task is the tiny one of benchmarks/transfer.py, whose backbone was trained on other images. Runs
are paired by seed, so that a pair differs in the frozen weights alone. Errors of feature maps are
those of one network with the weights that were rounded and with those of the file, before it was
tuned and after.

    python -m benchmarks frozen_dtype_tuning
"""
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from mmseg.datasets import build_dataset
from torch import Tensor

from benchmarks.context import Context
from benchmarks.intervals import Mean, differences
from benchmarks.networks import recipe
from benchmarks.registry import benchmark
from benchmarks.transfer import CONFIG, METHODS, SEEDS, Job, Transfer, prepare
from mmseg_custom.checkpoint.provenance import set_weights_source, weights_source_of
from mmseg_custom.distributed.memory import state_bytes
from mmseg_custom.engine.build import build_network
from mmseg_custom.engine.config import load_config
from mmseg_custom.engine.frozen_dtype import map_errors
from mmseg_custom.layers.quantized_linear import DTYPES

PLAIN = 'bfloat16'
KEY = 'model.backbone.frozen_dtype'
IMAGES = 16  # whose feature maps are compared
_, LAST, LORA, _ = METHODS
RATES = {LAST: 3e-3, LORA: 1e-2}  # near those that tuning.py chooses over bfloat16
HEADER = ('| trained | frozen blocks | mIoU over bfloat16 | mIoU | difference | error of the map '
          'before | after |', '|---|---|---|---|---|---|---|')


@benchmark('LoRA and last blocks over int8 and fp8: error of the maps, mIoU, bytes of the states',
           minutes=60, suite=())
def case(run: Context) -> None:
    """Tunes over each kind of frozen weights, seed by seed."""
    _add_bytes(run)
    task, start = prepare(run), time.monotonic()
    images = _images(task)
    scores, errors = defaultdict(list), defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(2) if run.tiny else SEEDS:
            if seed > 1 and run.time_left() < 1.2 * (time.monotonic() - start) / seed:
                break
            jobs = {(name, kind): Job({**METHODS[name], KEY: kind}, RATES[name], seed,
                                      keep=Path(folder, f'{name} {kind}.pth'))
                    for name in RATES for kind in (None, *DTYPES)}
            for (name, kind), score in zip(jobs, task.score(jobs.values())):
                scores[name, kind].append(score)
                if kind is not None:
                    errors[name, kind].append(_error(task, jobs[name, kind], images))
            run.fact(**{f'seed {seed}, mIoU of {name}, by dtype of what is frozen': {
                kind or PLAIN: scores[name, kind][-1] for kind in (None, *DTYPES)}
                for name in RATES})
    table = [*HEADER]
    for name in RATES:
        for kind in DTYPES:
            job = Job({**METHODS[name], KEY: kind}, RATES[name], 0)
            before, after = _error(task, job, images), Mean.of(errors[name, kind])
            table.append(_add_row(run, name, kind, scores[name, kind], scores[name, None])
                         + f' {before:.2%} | {after:.2%} |')
    print('\n'.join(table), flush=True)


def _add_row(run: Context, name: str, kind: str, found: list[float], plain: list[float]) -> str:
    """Adds the mIoU; returns the start of its line in docs/frozen_dtype.md."""
    more = f'{Mean.of(differences(found, plain)):+.2f}'
    run.row(f'mIoU of {name}, over {kind}', '%', found, {PLAIN: plain}, higher_is_better=True,
            notes=f'{len(found)} seeds; mean and 95 % of the differences of pairs: {more}')
    return f'| {name} | `{kind}` | {Mean.of(plain):.2f} | {Mean.of(found):.2f} | {more} |'


def _add_bytes(run: Context) -> None:
    """Adds the bytes of the states of LoRA, r=16, in all 45 blocks of the linear 6B recipe."""
    found = {}
    for kind in (None, *DTYPES):
        cfg = recipe('linear_probing', run)
        cfg.model.backbone.update(freeze_vit=False, adapt=dict(type='lora'), frozen_dtype=kind)
        found[kind] = sum(state_bytes(build_network(cfg, on_meta=True), 'single', 1))
    for kind in DTYPES:
        run.row(f'states of LoRA, r=16, over {kind}', 'GiB', found[kind], {PLAIN: found[None]},
                notes='weights, gradients and AdamW, by their shapes; without activations')


def _images(task: Transfer) -> Tensor:
    """Returns crops (B, 3, H, W) of test images."""
    cfg = load_config(CONFIG, {'data.train.description': str(task.rooms),
                               'data.train.part': 'test'})
    np.random.seed(0)
    dataset = build_dataset(cfg.data.train)
    return torch.stack([dataset[i]['img'].data for i in range(min(IMAGES, len(dataset)))])


def _error(task: Transfer, job: Job, images: Tensor) -> float:
    """Returns the relative error of the feature map, with what a job has trained."""
    cfg = load_config(CONFIG, {**job.settings, 'model.backbone.pretrained': str(task.backbone)})
    backbone = build_network(cfg, pretrained=True).backbone
    if job.keep is not None:
        source = weights_source_of(backbone)  # which a state dict without one would clear
        backbone.load_state_dict(torch.load(job.keep), strict=False)
        set_weights_source(backbone, source)
    error, = map_errors(backbone, images)
    return error
