"""A training step of head tuning: InternViT-6B frozen, UperNet, two crops of 504x504."""
from benchmarks.context import Context, at_least
from benchmarks.registry import benchmark
from benchmarks.steps import (
    DEFAULT,
    row_of_determinism,
    row_of_fast,
    row_of_prediction,
    rows_of_step,
)
from benchmarks.training import config_of, predict, training


def by_default(run: Context) -> list[float]:
    """Measures steps of the recipe; returns their seconds."""
    cfg = config_of('head_tuning', run)
    with training(cfg, run, predict(cfg, run)[0]) as trained:
        ours = rows_of_step(run, trained, {}, ())
        row_of_prediction(run, trained, ours)
        row_of_determinism(run, trained, ours)
    return ours


@benchmark('A step of head tuning, frozen backbone and UperNet, two crops of 504x504', minutes=2.5,
           suite=('cuda',), order=14)
def case(run: Context) -> None:
    """Measures steps by default, whose memory is then free, and with the options of speed."""
    ours = by_default(run)
    row_of_fast(run, 'head_tuning', ours, (at_least(DEFAULT, 1.7),))
