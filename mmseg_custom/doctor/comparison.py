"""Which ways of tuning a backbone fit a card: the same heads, data and batch for each of them.

    frozen                          heads alone
    LoRA                            adapters over a base in bfloat16, and in 8 bits
    last blocks
    full tuning                     with LowMemoryAdamW, and with AdamW

The way of the config has its own settings. Each is predicted in the fastest form that fits: nothing
is recomputed, or else the activations of the blocks.
"""
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from mmcv import Config

from ..distributed.memory import memory_for
from ..distributed.options import Engine
from ..engine.batch_norm import find_single_value
from ..engine.build import build_network
from ..engine.options import RunOptions
from ..engine.run import prepare_run
from ..errors import InputError
from ..models.tuning import FROZEN, FULL, LAST_BLOCKS, LORA, tuning_of
from ..optim import low_memory
from ..units import GIB
from .depth import num_read, trained_part
from .environment import checkpoint_bytes
from .memory import (
    MemoryEstimate,
    Traces,
    fits,
    is_ours,
    num_under_autograd,
    resolve_engine,
    type_of,
)
from .run_shape import RunShape, run_shape_of
from .timing import rates_of_run, seconds_of

LAST, RANK, EIGHT_BITS = 4, 16, 'int8'  # of the ways that the config does not give
OF_TUNING = ('adapt', 'train_last', 'train_norms', 'frozen_dtype', 'unfreeze_pos_embed')
OF_ADAMW = ('lr', 'betas', 'eps', 'weight_decay', 'constructor', 'paramwise_cfg')


@dataclass
class Way:
    """What is predicted of a way of tuning the backbone of a config.

    Attributes:
        name: What it is.
        own: Whether the config that was given does it.
        trained: Number of trained parameters.
        checkpoint: Bytes of a checkpoint.
        estimate: Memory of the fastest form that fits, or of the one that takes least.
        seconds: Seconds of an iteration; None where no rate is known.
    """
    name: str
    own: bool
    trained: int
    checkpoint: int
    estimate: MemoryEstimate
    seconds: float | None = None


@dataclass(frozen=True)
class Comparison:
    """All ways, and what would fit where none does.

    Attributes:
        shape: Sizes of the run.
        ways: The ways, in the order of what is trained.
        refused: Why the config cannot be trained in a way, by the way's name.
        advice: What would fit; '' where something does, or where no memory is known.
    """
    shape: RunShape
    ways: list[Way]
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
    if not is_ours(cfg):
        raise InputError(f'--compare with model.backbone.type={cfg.model.backbone.type!r}: only '
                         'InternViT6B is known to be tuned in several ways')
    shape = run_shape_of(prepare_run(cfg, options, splits=(), ranks=ranks), memory)
    ways, refused, configs = [], {}, {}
    for name, own, changed in ways_of(cfg):
        progress(f'memory: {name}')
        try:
            ways.append(predict_way(name, own, changed, shape))
            configs[name] = changed
        except InputError as error:
            if own:
                raise
            refused[name] = str(error)
    progress('rates')
    calls = {kernel: call for way in ways for kernel, call in way.estimate.calls.items()}
    rates = rates_of_run(cfg, options, calls, tflops)
    if rates is not None:
        for way in ways:
            way.seconds = seconds_of(way.estimate, *rates)
    advice = ''
    if all(way.estimate.fits is False for way in ways):
        least = min(ways, key=lambda each: each.estimate.peak)
        progress(f'memory: {least.name}, fewer images')
        advice = _what_fits(least, configs[least.name], shape)
    return Comparison(shape, ways, refused, advice)


def ways_of(cfg: Config) -> Iterator[tuple[str, bool, Config]]:
    """Yields the ways of tuning a backbone: name, whether it is the config's own, config."""
    kind, rounded = tuning_of(cfg.model.backbone), bool(cfg.model.backbone.get('frozen_dtype'))
    is_low = cfg.optimizer.type == low_memory.NAME
    adapt = cfg.model.backbone.adapt if kind == LORA else dict(type='lora', r=RANK)
    for is_own, optimizer, options in (
            (kind == FROZEN, 'AdamW', dict(freeze_vit=True)),
            (kind == LORA and not rounded, 'AdamW', dict(adapt=adapt)),
            (kind == LORA and rounded, 'AdamW', dict(adapt=adapt, frozen_dtype=EIGHT_BITS)),
            (kind == LAST_BLOCKS, 'AdamW', dict(train_last=min(LAST, num_read(cfg)))),
            (kind == FULL and is_low, low_memory.NAME, {}),
            (kind == FULL and not is_low, 'AdamW', {})):
        changed = cfg if is_own else _tuned(cfg, optimizer, options)
        yield _name_of(changed), is_own, changed


def predict_way(name: str, own: bool, cfg: Config, shape: RunShape) -> Way:
    """Predicts one way.

    Args:
        name: Name of the way.
        own: Whether it is that of the config that was given.
        cfg: Config that trains so.
        shape: Sizes of the run of the config that was given.

    Raises:
        InputError: If the config cannot be trained so.
    """
    model = build_network(cfg, on_meta=True)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if not own:
        shape = replace(shape, cached=None, has_blocks=True)
    return Way(name, own, trained, checkpoint_bytes(cfg, model), _fastest(cfg, shape))


def _fastest(cfg: Config, shape: RunShape) -> MemoryEstimate:
    """Predicts the fastest form of a run that fits, or the one that takes least."""
    engine = Engine.of(cfg.get('engine'))
    engine = resolve_engine(cfg, shape, replace(engine, type=type_of(cfg, shape, engine)))
    traces = Traces(cfg, shape)
    if not num_under_autograd(cfg):
        forms = [(engine, False)]
    elif engine.recomputes_on_demand:
        forms = [(engine.with_recomputed(traces.choose(engine).blocks), True)]
    else:
        forms = [(engine, False), (engine, True)]
    if shape.usable is None:
        forms = forms[-1:]
    for form in forms:
        plain, *offloaded = traces.estimate(*form)
        found = offloaded[0] if engine.cpu_offload and offloaded else plain
        found.fits = fits(found, shape)
        if found.fits:
            break
    return found


def _tuned(cfg: Config, optimizer: str, options: dict) -> Config:
    """Returns a config whose backbone is tuned in another way, with the same heads and data."""
    cfg = copy.deepcopy(cfg)
    backbone = cfg.model.backbone
    for name in OF_TUNING:
        backbone.pop(name, None)
    backbone.update(dict(dict(freeze_vit=False), **options))
    cfg.pop('feature_cache', None)
    if cfg.optimizer.type != optimizer:
        cfg.optimizer = {'type': optimizer, **{
            name: value for name, value in cfg.optimizer.items() if name in OF_ADAMW}}
    return cfg


def _name_of(cfg: Config) -> str:
    """Names the way in which a config tunes its backbone."""
    tuning, rounded = trained_part(cfg), cfg.model.backbone.get('frozen_dtype')
    if tuning.kind == FULL:
        return f'full tuning, {cfg.optimizer.type}'
    if tuning.kind == FROZEN:
        return f'frozen, {rounded}' if rounded else 'frozen'
    if tuning.lora is not None:
        name = f'{"DoRA" if tuning.lora.use_dora else "LoRA"} r={tuning.lora.r}'
        few = len(tuning.blocks) < num_read(cfg)
        return f'{name}{f", {len(tuning.blocks)} blocks" if few else ""}, {rounded or "bf16"} base'
    name = f'last {len(tuning.blocks)} blocks{" and norms" if tuning.norms else ""}'
    return f'{name}, {rounded} base' if rounded else name


def _what_fits(way: Way, cfg: Config, shape: RunShape) -> str:
    """Says how the way that takes least would fit: with fewer images at once, or a larger card."""
    least = 1 if find_single_value(cfg, shape.ranks) is None else 2
    if least < shape.images:
        total = shape.images * shape.ranks * shape.accumulation
        estimate = _fastest(cfg, replace(shape, images=least))
        if estimate.fits:
            return (f'{way.name} with data.samples_per_gpu={least} and --total-batch {total}: '
                    f'{estimate.peak / GIB:.1f} GiB')
    if shape.device == 'cuda':
        return f'{way.name} on a GPU of {memory_for(way.estimate.peak) / GIB:.1f} GiB or more'
    needed = way.estimate.peak * shape.ranks
    return f'{way.name} on a machine with {needed / GIB:.1f} GiB of free memory or more'
