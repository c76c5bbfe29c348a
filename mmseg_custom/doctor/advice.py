"""What to change in a run that does not fit into memory."""
from ..units import GIB
from .findings import Finding, fault
from .memory import MemoryEstimate
from .memory_tracker import STATES
from .run_shape import RunShape


def advise(chosen: MemoryEstimate | None, estimates: list[MemoryEstimate],
           shape: RunShape) -> tuple[list[Finding], list[str]]:
    """Returns a fault, and ways out, where the strategy of the config does not fit."""
    usable = shape.usable
    if chosen is None or chosen.fits is not False or usable is None:
        return [], []
    advice = [f'{each.name}: {each.peak / GIB:.1f} GiB ({_options_of(each)})'
              for each in sorted(estimates, key=lambda e: (e.offload, not e.checkpointing))
              if each.fits] or _smaller(estimates, shape, usable)
    unit = 'GPU' if shape.device == 'cuda' else 'machine'
    return [fault(
        'memory', f'{chosen.name} needs {chosen.peak / GIB:.1f} GiB of the '
        f'{usable / GIB:.1f} GiB that a {unit} has for it',
        advice[0] if advice else 'take larger GPUs', 'engine')], advice


def _options_of(estimate: MemoryEstimate) -> str:
    options = [f'--engine {estimate.engine}']
    options += ['engine.cpu_offload=True'] if estimate.offload else []
    return ', '.join([*options, f'model.backbone.with_cp={estimate.checkpointing}'])


def _smaller(estimates: list[MemoryEstimate], shape: RunShape, usable: int) -> list[str]:
    """Suggests fewer images at once, or more GPUs."""
    advice, on_gpu = [], [each for each in estimates if not each.offload]
    if shape.images > 1:
        advice.append(f'data.samples_per_gpu=1 and --total-batch '
                      f'{shape.images * shape.ranks * shape.accumulation} with '
                      f'{min(on_gpu, key=lambda each: each.peak).name}')
    for each in on_gpu if shape.device == 'cuda' else ():
        states = sum(each.parts[kind] for kind in STATES)
        room = usable - (each.peak - states)
        if each.engine == 'fsdp2' and room > 0:
            ranks = -(-states * shape.ranks // room)
            advice.append(f'{each.name} on {max(ranks, shape.ranks + 1)} or more GPUs')
    return advice
