"""Which ways of tuning a backbone fit a card, each in the fastest form that does.

In the fastest form nothing is recomputed, in the other the activations of the blocks.
"""
from collections.abc import Callable
from dataclasses import dataclass, replace

from mmcv import Config

from ..distributed.memory import memory_for
from ..engine.batch_norm import find_single_value
from ..engine.build import build_network
from ..engine.options import RunOptions
from ..engine.run import prepare_run
from ..errors import InputError
from ..models.backbone_options import traits_of
from ..units import GIB
from .environment import checkpoint_bytes
from .memory import MemoryEstimate
from .run_shape import RunShape, run_shape_of
from .timing import rates_of_run, seconds_of
from .ways import Way, fastest, ways_of


@dataclass
class Prediction:
    """What is predicted of a way.

    Attributes:
        way: The way.
        trained: Number of trained parameters.
        checkpoint: Bytes of a checkpoint.
        estimate: Memory of the fastest form that fits, or of the one that takes least.
        seconds: Seconds of an iteration; None where no rate is known.
    """
    way: Way
    trained: int
    checkpoint: int
    estimate: MemoryEstimate
    seconds: float | None = None


@dataclass(frozen=True)
class Comparison:
    """All ways, and what would fit where none does.

    Attributes:
        shape: Sizes of the run.
        predictions: What is predicted of the ways, in the order of what is trained.
        refused: Why the config cannot be trained in a way, by the way's name.
        advice: What would fit; '' where something does, or where no memory is known.
    """
    shape: RunShape
    predictions: list[Prediction]
    refused: dict[str, str]
    advice: str = ''


def compare(cfg: Config, options: RunOptions, ranks: int, memory: int | None,
            tflops: float | None = None,
            progress: Callable[[str], None] = lambda text: None) -> Comparison:
    """Predicts memory and time of each way of tuning; for the arguments see ``run_checks``.

    Raises:
        InputError: If the backbone is not one of this package, or the config's own way of training
            it does not work.
    """
    if not traits_of(cfg.model.backbone).is_tunable:
        raise InputError(f'--compare with model.backbone.type={cfg.model.backbone.type!r}: only '
                         'InternViT6B is known to be tuned in several ways')
    shape = run_shape_of(prepare_run(cfg, options, splits=(), ranks=ranks), memory)
    found, refused = [], {}
    for way in ways_of(cfg):
        progress(f'memory: {way.name}')
        try:
            found.append(predict_way(way, shape))
        except InputError as error:
            if way.own:
                raise
            refused[way.name] = str(error)
    progress('rates')
    calls = {kernel: call for each in found for kernel, call in each.estimate.calls.items()}
    rates = rates_of_run(cfg, options, calls, tflops)
    if rates is not None:
        for each in found:
            each.seconds = seconds_of(each.estimate, *rates)
    advice = ''
    if all(each.estimate.fits is False for each in found):
        least = min(found, key=lambda each: each.estimate.peak)
        progress(f'memory: {least.way.name}, fewer images')
        advice = _what_fits(least, shape)
    return Comparison(shape, found, refused, advice)


def predict_way(way: Way, shape: RunShape) -> Prediction:
    """Predicts one way.

    Args:
        way: The way.
        shape: Sizes of the run of the config that was given.

    Raises:
        InputError: If the config cannot be trained so.
    """
    model = build_network(way.cfg, on_meta=True)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if not way.own:
        shape = replace(shape, cached=None, has_blocks=True)
    return Prediction(way, trained, checkpoint_bytes(way.cfg, model), fastest(way.cfg, shape))


def _what_fits(found: Prediction, shape: RunShape) -> str:
    """Says how the way that takes least would fit: with fewer images at once, or a larger card."""
    least = 1 if find_single_value(found.way.cfg, shape.ranks) is None else 2
    if least < shape.images:
        total = shape.images * shape.ranks * shape.accumulation
        estimate = fastest(found.way.cfg, replace(shape, images=least))
        if estimate.fits:
            return (f'{found.way.name} with data.samples_per_gpu={least} and --total-batch '
                    f'{total}: {estimate.peak / GIB:.1f} GiB')
    if shape.device == 'cuda':
        memory = memory_for(found.estimate.peak)
        return f'{found.way.name} on a GPU of {memory / GIB:.1f} GiB or more'
    needed = found.estimate.peak * shape.ranks
    return f'{found.way.name} on a machine with {needed / GIB:.1f} GiB of free memory or more'
