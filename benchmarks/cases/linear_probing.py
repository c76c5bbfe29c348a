"""A training step of linear probing: InternViT-6B frozen, two crops of 504x504.

The original's way, in the same run: its blocks, all 48 of them, mmseg's loss on logits of every
pixel, and mmcv's own runner, hooks and copies. The limit is the time that all products of the step
take at the rate of a product of the MLP's shape. On the CPU the network has two blocks.
"""
import tempfile

from benchmarks.context import Context, at_least
from benchmarks.original import OriginalTraining
from benchmarks.registry import benchmark
from benchmarks.steps import (
    limit_of,
    row_of_determinism,
    row_of_fast,
    row_of_prediction,
    rows_of_step,
)
from benchmarks.training import config_of, predict, training
from mmseg_custom.distributed.parallelize import unwrap

ORIGINAL = "the original's way"


def by_default(run: Context) -> list[float]:
    """Measures steps of the recipe and of the original's way in turns; returns ours."""
    cfg = config_of('linear_probing', run)
    with tempfile.TemporaryDirectory() as folder, training(
            cfg, run, predict(cfg, run)[0]) as trained:
        original = OriginalTraining(unwrap(trained.runner.model), cfg, run.device, folder)
        ours = rows_of_step(run, trained, {ORIGINAL: lambda: original.step(trained.unpinned)},
                            (limit_of(0.80), at_least(ORIGINAL, 1.3)))
        run.profile(ORIGINAL, lambda: original.step(trained.unpinned))
        row_of_prediction(run, trained, ours)
        if run.on_gpu or run.tiny:
            row_of_determinism(run, trained, ours)
    return ours


@benchmark('A step of linear probing, frozen backbone, two crops of 504x504', minutes=3, order=10)
def case(run: Context) -> None:
    """Measures steps by default, whose memory is then free, and with the options of speed."""
    ours = by_default(run)
    row_of_fast(run, 'linear_probing', ours, (limit_of(0.80),))
