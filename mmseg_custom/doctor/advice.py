"""What to change in a run that does not fit into memory; each change is predicted, too."""
import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

from mmcv import Config

from ..distributed.options import Engine
from ..engine.batch import split_batch
from ..engine.batch_norm import find_single_value
from ..models.backbone_options import traits_of
from ..models.tuning import PARTLY
from ..optim import low_memory
from ..units import GIB
from .findings import Finding, fault
from .memory import MemoryEstimate, predict
from .memory_tracker import STATES
from .run_kind import num_under_autograd, type_of
from .run_shape import RunShape
from .ways import OF_TUNING, fastest, ways_of

FLAGS = ('freeze_vit', 'train_norms', 'unfreeze_pos_embed')  # what is trained; off by default


def advise(cfg: Config, estimates: list[MemoryEstimate], shape: RunShape,
           progress: Callable[[str], None] = lambda text: None) -> tuple[list[Finding], list[str]]:
    """Returns a fault, and ways out, where the strategy of the config does not fit.

    Args:
        cfg: Resolved config of the run.
        estimates: Memory of every strategy.
        shape: Sizes of the run.
        progress: Called with what comes next.
    """
    usable, chosen = shape.usable, next((each for each in estimates if each.chosen), None)
    if chosen is None or chosen.fits is not False or usable is None:
        return [], []
    fitting = _fitting(estimates)
    advice = [_describe(each) for each in fitting]
    if shape.device == 'cuda' and not chosen.checkpointing and fitting and (
            fitting[0].checkpointing and fitting[0].blocks is None):
        advice[0] += '; engine.checkpoint_every=auto recomputes no more blocks than have to be'
    if all(each.offload for each in fitting):
        advice = [*_other_settings(cfg, shape, progress), *advice]
    advice = advice or _more_gpus(estimates, shape, usable)
    unit = 'GPU' if shape.device == 'cuda' else 'machine'
    return [fault(
        'memory', f'{chosen.name} needs {chosen.peak / GIB:.1f} GiB of the '
        f'{usable / GIB:.1f} GiB that a {unit} has for it',
        advice[0] if advice else 'take larger GPUs', 'engine')], advice


def _fitting(estimates: list[MemoryEstimate]) -> list[MemoryEstimate]:
    """Returns what fits, the fastest first."""
    return sorted((each for each in estimates if each.fits),
                  key=lambda each: (each.offload, not each.checkpointing))


def _describe(estimate: MemoryEstimate) -> str:
    options = [f'--engine {estimate.engine}']
    options += ['engine.cpu_offload=True'] if estimate.offload else []
    options += [f'model.backbone.with_cp={estimate.checkpointing}']
    if estimate.blocks is not None and estimate.checkpointing:
        options += [f'engine.checkpoint_blocks={estimate.blocks}']
    return f'{estimate.name}: {estimate.peak / GIB:.1f} GiB ({", ".join(options)})'


def _other_settings(cfg: Config, shape: RunShape,
                    progress: Callable[[str], None]) -> Iterator[str]:
    """Yields changes of batch and optimizer, with the fastest strategy that then fits."""
    for words, changed, its_shape in _changes(cfg, shape):
        progress(words)
        fitting = [each for each in _fitting(predict(changed, its_shape)) if not each.offload]
        if fitting:
            yield f'{words} with {_describe(fitting[0])}'
    yield from _other_ways(cfg, shape, progress)


def _other_ways(cfg: Config, shape: RunShape, progress: Callable[[str], None]) -> Iterator[str]:
    """Yields ways of training a part of the backbone, in the place of all or another part of it."""
    if not (traits_of(cfg.model.backbone).is_tunable and num_under_autograd(cfg)):
        return
    for way in ways_of(cfg):
        if way.kind not in PARTLY or way.own:
            continue
        progress(way.name)
        found = fastest(way.cfg, replace(shape, cached=None, has_blocks=True))
        if found.fits:
            yield (f'{way.name} in the place of what is trained now: {found.peak / GIB:.1f} GiB '
                   f'({", ".join(tuning_settings(cfg, way.cfg))}, model.backbone.with_cp='
                   f'{found.checkpointing})')


def tuning_settings(cfg: Config, other: Config) -> Iterator[str]:
    """Yields the values of --cfg-options by which a config trains what another one does."""
    before, after = cfg.model.backbone, other.model.backbone
    for name in ('freeze_vit', *OF_TUNING):
        unset = False if name in FLAGS else None
        old, new = (unset if backbone.get(name) is None else backbone[name]
                    for backbone in (before, after))
        if name == 'adapt' and new and not old:
            yield f'model.backbone.adapt.type={after.adapt["type"]}'
        elif old != new:
            yield f'model.backbone.{name}={new}'
    if cfg.optimizer.type != other.optimizer.type:
        yield f'optimizer.type={other.optimizer.type}'


def _changes(cfg: Config, shape: RunShape) -> Iterator[tuple[str, Config, RunShape]]:
    """Yields (settings in words, config, sizes)."""
    for words, changed in _engine_changes(cfg, shape):
        yield words, changed, shape
    total = shape.images * shape.ranks * shape.accumulation
    # A head with a batch norm of 1x1 maps needs two images, or several processes.
    least = 1 if find_single_value(cfg, shape.ranks) is None else 2
    batch = split_batch(total, shape.ranks, least)
    fewer = replace(shape, images=batch.samples, accumulation=batch.accumulation)
    in_words = f'data.samples_per_gpu={batch.samples} and --total-batch {total}'
    has_fewer = least <= batch.samples < shape.images
    if has_fewer:
        yield in_words, cfg, fewer
    if shape.device == 'cuda' and cfg.optimizer.type == 'AdamW':
        low = copy.deepcopy(cfg)
        low.optimizer.type = low_memory.NAME
        words = f'optimizer.type={low_memory.NAME} (pip install torchao)'
        yield words, low, shape
        if has_fewer:
            yield f'{words}, {in_words}', low, fewer


def _engine_changes(cfg: Config, shape: RunShape) -> Iterator[tuple[str, Config]]:
    """Yields options of a sharded run that take less memory: (setting, config)."""
    engine = Engine.of(cfg.get('engine'))
    sharded = type_of(cfg, shape, engine) == 'fsdp2'
    options = {'reshard_after_forward': True} if engine.reshard_after_forward is False else {}
    if engine.hybrid is True and len(shape.hosts) > 1:
        options['hybrid'] = False
    for key, value in options.items() if sharded else ():
        changed = copy.deepcopy(cfg)
        changed.engine[key] = value
        yield f'engine.{key}={value}', changed


def _more_gpus(estimates: list[MemoryEstimate], shape: RunShape, usable: int) -> list[str]:
    """Suggests as many GPUs as the states need, which FSDP2 shards."""
    advice = []
    for each in estimates if shape.device == 'cuda' else ():
        states = sum(each.parts[kind] for kind in STATES)
        room = usable - (each.peak - states)
        if each.engine == 'fsdp2' and not each.offload and room > 0:
            ranks = -(-states * shape.ranks // room)
            advice.append(f'{each.name} on {max(ranks, shape.ranks + 1)} or more GPUs')
    return advice
