"""A training step of full tuning: all weights trained, UperNet, two crops of 504x504.

Full tuning that the doctor predicts not to fit is tried with LowMemoryAdamW, and then with fewer
blocks. The limit counts no operation twice, although blocks may be recomputed.
"""
from mmcv import Config

from benchmarks.context import Context
from benchmarks.registry import benchmark
from benchmarks.steps import (
    limit_of,
    row_of_determinism,
    row_of_fast,
    row_of_prediction,
    rows_of_step,
)
from benchmarks.training import config_of, predict, training
from mmseg_custom.distributed.compiler import require_compiler
from mmseg_custom.doctor.memory import MemoryEstimate
from mmseg_custom.errors import InputError
from mmseg_custom.optim import low_memory

FORMS: list[dict] = [{}, {'optimizer.type': low_memory.NAME}, {'blocks': 24}, {'blocks': 12}]


def choose(run: Context) -> tuple[Config, dict, MemoryEstimate]:
    """Returns the recipe, or the largest part of it that is predicted to fit."""
    for form in FORMS:
        if 'optimizer.type' in form and not _low_memory_runs(run.device):
            continue
        cfg = config_of('full_tuning', run, **form)
        predicted, shape = predict(cfg, run)
        if shape.usable is None or predicted.peak <= shape.usable:
            break
    return cfg, form, predicted


def _low_memory_runs(device: str) -> bool:
    try:
        import torchao.optim  # noqa: F401
        if device == 'cuda':
            require_compiler(low_memory.NAME)
    except (ImportError, InputError):
        return False
    return True


def by_default(run: Context) -> tuple[dict, list[float]]:
    """Measures steps of the recipe, or of the form of it that fits; returns form and seconds."""
    cfg, form, predicted = choose(run)
    run.fact(changes=form)
    with training(cfg, run, predicted) as trained:
        ours = rows_of_step(run, trained, {}, (limit_of(0.45),))
        row_of_prediction(run, trained, ours)
        row_of_determinism(run, trained, ours)
    return form, ours


@benchmark('A step of full tuning, all weights trained, two crops of 504x504', minutes=3.5,
           suite=('cuda',), order=18)
def case(run: Context) -> None:
    """Measures steps by default, whose memory is then free, and with the options of speed."""
    form, ours = by_default(run)
    row_of_fast(run, 'full_tuning', ours, (limit_of(0.45),), **form)
