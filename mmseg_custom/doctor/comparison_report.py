"""The comparison of ways of tuning as a table, and as JSON for programs."""
import json

from ..units import format_bytes
from .comparison import Comparison, Prediction
from .report import columns, figure, part, sizes_of, unit_for

NO_TIME = '-'


def table(found: Comparison, name: str) -> str:
    """Formats the comparison as one table.

    Args:
        found: The comparison.
        name: Name of the config.
    """
    shape = found.shape
    unit, unit_name = unit_for([each.estimate for each in found.predictions])
    names = [f'{"*" if each.way.own else " "} {each.way.name}' for each in found.predictions]
    width = max(map(len, names))
    over, under, *rows = columns([
        ['peak', '', 'trained', 'check-', 'seconds', '', 're-'],
        [unit_name, 'fits', 'million', 'point', 'a step', 'engine', 'computed'],
        *([f'{each.estimate.peak / unit:.1f}', _fits(each), f'{each.trained / 1e6:,.1f}',
           format_bytes(each.checkpoint, decimal=True),
           NO_TIME if each.seconds is None else figure(each.seconds), each.estimate.engine,
           _recomputed(each)] for each in found.predictions)])
    accumulated = f'; {shape.accumulation} batches an iteration' if shape.accumulation > 1 else ''
    lines = [name, *part('ways to tune', f'predicted for {sizes_of(found.shape, unit_name)}'
                         f'{accumulated}'), '']
    lines += [f'{label:<{width}}{row}' for label, row in zip(
        ['', '  backbone', *names], [over, under, *rows])]
    lines += [f'  {name}: {problem}' for name, problem in found.refused.items()]
    return '\n'.join([*lines, '* is what the config trains', *_conclusion(found)])


def as_json(found: Comparison, name: str) -> str:
    """Formats the comparison for programs."""
    shape = found.shape
    return json.dumps(dict(
        config=name, device=shape.device, ranks=shape.ranks, images=shape.images, crop=shape.crop,
        accumulation=shape.accumulation, memory_bytes=shape.memory, usable_bytes=shape.usable,
        ways=[_as_dict(each) for each in found.predictions], refused=found.refused,
        advice=found.advice), indent=1)


def _as_dict(found: Prediction) -> dict:
    estimate = found.estimate
    return dict(
        name=found.way.name, own=found.way.own, fits=estimate.fits, peak_bytes=estimate.peak,
        parts=estimate.parts, trained_parameters=found.trained, checkpoint_bytes=found.checkpoint,
        seconds=found.seconds, engine=estimate.engine, offload=estimate.offload,
        checkpointing=estimate.checkpointing, checkpoint_blocks=estimate.blocks)


def _fits(found: Prediction) -> str:
    return {True: 'yes', False: 'no', None: '?'}[found.estimate.fits]


def _recomputed(found: Prediction) -> str:
    """Says of how many blocks the activations are recomputed."""
    if not found.estimate.checkpointing:
        return 'nothing'
    return 'all' if found.estimate.blocks is None else f'{found.estimate.blocks}'


def _conclusion(found: Comparison) -> list[str]:
    """Says what would fit where nothing does."""
    return [f'nothing fits; what would: {found.advice}'] if found.advice else []
