"""The rows that all cases of training steps have: time, limit, memory, modes and a profile."""
import math
import statistics
from collections.abc import Callable, Mapping

import torch

from mmseg_custom.doctor.timing import measure_rates, seconds_of
from mmseg_custom.errors import InputError

from .context import Context, at_least, at_most, within
from .networks import matmul
from .results import LIMIT, Target
from .training import (
    Training,
    config_of,
    deterministic,
    free_memory,
    needed_flops,
    predict,
    training,
)

TITLE = 'step, two crops'
FAST = 'step with engine.fast'
DEFAULT = 'the default'
DOCTOR = "the doctor's prediction"
CARD = 'what it is to stay below'
TOLERANCE = 0.1  # of the memory that is predicted
# Of head tuning's 25.8 GiB on an H200, the workspace of one convolution is 3.9, of which 1.5 are
# predicted.
SEARCHED = 0.15
FIRST_STEPS = 3  # on a GPU: they load kernels, search for convolutions, and compile


def rows_of_step(run: Context, trained: Training, others: Mapping[str, Callable[[], object]],
                 targets: tuple[Target, ...]) -> list[float]:
    """Measures steps and what they are compared with; returns the seconds of ours.

    Args:
        run: The case.
        trained: The training, which has taken no step yet.
        others: Steps of references by their names.
        targets: Expectations of the row.
    """
    take_first_steps(run, trained)
    if run.on_gpu:
        row_of_memory(run, trained)
    product, flops_of_product = matmul(run)
    rounds = 5 if run.on_gpu else 3
    times = run.measure({'ours': trained.step, **others, 'product': product}, rounds=rounds)
    flops = needed_flops(trained.cfg, run)
    rate = flops_of_product / statistics.median(times['product'])
    row = run.row(TITLE, 'ms', times['ours'], {name: times[name] for name in others},
                  limit=flops / rate, targets=targets, notes=_notes(trained))
    run.fact(tflop_of_a_step=round(flops / 1e12, 3), matmul_tflops=round(rate / 1e12, 2),
             loss=trained.loss())
    if not math.isfinite(trained.loss()):
        run.wrong(f'the loss is {trained.loss()}')
    run.profile(row.title, trained.step)
    return times['ours']


def take_first_steps(run: Context, trained: Training) -> None:
    """Takes the steps that are not measured; the first one creates the optimizer's state."""
    for _ in range(FIRST_STEPS if run.on_gpu and not run.tiny else 1):
        trained.step()


def _notes(trained: Training) -> str:
    depth = trained.cfg.model.backbone.get('depth', 48)
    return '' if depth == 48 else f'{depth} blocks'


def row_of_memory(run: Context, trained: Training, title: str = 'peak memory of a step',
                  most: float | None = None) -> None:
    """Compares the peak memory of steps after the first ones with the prediction.

    Args:
        run: The case.
        trained: The training.
        title: Title of the row.
        most: Bytes that a step is expected to stay below.
    """
    peak, predicted = run.peak_memory(trained.step), trained.predicted.peak
    limits = {} if most is None else {CARD: most}
    run.row(title, 'GiB', peak, {DOCTOR: predicted, **limits},
            targets=[within(DOCTOR, TOLERANCE), *(at_most(CARD, 1) for _ in limits)])
    above = SEARCHED if torch.backends.cudnn.benchmark else TOLERANCE
    if not 1 - TOLERANCE < peak / predicted < 1 + above and not run.tiny:
        run.wrong(f'memory: {peak / 2 ** 30:.2f} GiB, predicted {predicted / 2 ** 30:.2f} GiB')


def row_of_prediction(run: Context, trained: Training, ours: list[float]) -> None:
    """Compares the time of a step with the doctor's prediction, by rates that are measured."""
    rates, bandwidth = measure_rates(run.device, trained.predicted.calls.values(),
                                     torch.backends.cudnn.benchmark, deterministic=False)
    run.row("step, against the doctor's prediction", 'ms', ours,
            {DOCTOR: seconds_of(trained.predicted, rates, bandwidth)})
    run.fact(tflops_by_kernel={str(kernel): round(rate / 1e12, 2) for kernel, rate in
                               rates.items()})


def row_of_determinism(run: Context, trained: Training, ours: list[float]) -> None:
    """Measures steps with ``--deterministic``."""
    with deterministic(trained.runner.model, run.device):
        times = run.measure({'strict': trained.step}, seconds=run.seconds / 2, rounds=3)
    run.row('step with --deterministic', 'ms', times['strict'], {DEFAULT: ours})


def row_of_fast(run: Context, name: str, ours: list[float], targets: tuple[Target, ...],
                **settings: object) -> None:
    """Measures steps with ``engine.fast``, or says why that cannot be.

    Args:
        run: The case.
        name: Name of the recipe.
        ours: Seconds of a step by default.
        targets: Expectations, of ``DEFAULT`` or the limit.
        **settings: Other keys of the config and their values.
    """
    free_memory()
    settings['engine.fast'] = True
    if run.tiny:  # A compilation takes minutes on a busy CPU; compiled_blocks.py tries it.
        settings['engine.compile'] = False
    try:
        cfg = config_of(name, run, **settings)
        with training(cfg, run, predict(cfg, run)[0]) as trained:
            take_first_steps(run, trained)
            product, flops_of_product = matmul(run)
            times = run.measure({'ours': trained.step, 'product': product},
                                rounds=5 if run.on_gpu else 3)
            rate = flops_of_product / statistics.median(times['product'])
            run.row(FAST, 'ms', times['ours'], {DEFAULT: ours},
                    limit=needed_flops(cfg, run) / rate, targets=targets)
            run.profile(FAST, trained.step)
    except InputError as error:
        run.missing(FAST, str(error))


def limit_of(share: float) -> Target:
    """Expects a step to reach a share of the rate of the matrix product."""
    return at_least(LIMIT, share)
