"""The ways of tuning the backbone of a config: the same heads, data and batch for each of them.

    frozen                          heads alone
    LoRA                            adapters over a base in bfloat16, and in 8 bits
    last blocks
    full tuning                     with LowMemoryAdamW, and with AdamW

The way of the config has its own settings.
"""
import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mmcv import Config

from ..distributed.options import Engine
from ..engine.tuning import num_read, tuning_in
from ..models.tuning import FROZEN, FULL, LAST_BLOCKS, LORA, tuning_of
from ..optim import low_memory
from .memory import MemoryEstimate, Traces, fits, resolve_engine
from .run_kind import num_under_autograd, type_of
from .run_shape import RunShape

LAST, RANK, EIGHT_BITS = 4, 16, 'int8'  # of the ways that the config does not give
OF_TUNING = ('adapt', 'train_last', 'train_norms', 'frozen_dtype', 'unfreeze_pos_embed')
OF_ADAMW = ('lr', 'betas', 'eps', 'weight_decay', 'constructor', 'paramwise_cfg')


@dataclass(frozen=True)
class Way:
    """A way of tuning the backbone.

    Attributes:
        name: What it is.
        kind: One of :mod:`..models.tuning`.
        cfg: Config that trains so.
        own: Whether the config that was given does.
    """
    name: str
    kind: str
    cfg: Config
    own: bool


def ways_of(cfg: Config) -> Iterator[Way]:
    """Yields the ways of tuning the backbone of a config."""
    kind, rounded = tuning_of(cfg.model.backbone), bool(cfg.model.backbone.get('frozen_dtype'))
    is_low = cfg.optimizer.type == low_memory.NAME
    adapt = cfg.model.backbone.adapt if kind == LORA else dict(type='lora', r=RANK)
    for other, is_own, optimizer, options in (
            (FROZEN, True, 'AdamW', dict(freeze_vit=True)),
            (LORA, not rounded, 'AdamW', dict(adapt=adapt)),
            (LORA, rounded, 'AdamW', dict(adapt=adapt, frozen_dtype=EIGHT_BITS)),
            (LAST_BLOCKS, True, 'AdamW', dict(train_last=min(LAST, num_read(cfg.model.backbone)))),
            (FULL, is_low, low_memory.NAME, {}),
            (FULL, not is_low, 'AdamW', {})):
        own = kind == other and is_own
        changed = cfg if own else _tuned(cfg, optimizer, options)
        yield Way(_name_of(changed), other, changed, own)


def fastest(cfg: Config, shape: RunShape) -> MemoryEstimate:
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
    backbone.update({'freeze_vit': False, **options})
    cfg.pop('feature_cache', None)
    if cfg.optimizer.type != optimizer:
        cfg.optimizer = {'type': optimizer, **{
            name: value for name, value in cfg.optimizer.items() if name in OF_ADAMW}}
    return cfg


def _name_of(cfg: Config) -> str:
    """Names the way in which a config tunes its backbone."""
    tuning, rounded = tuning_in(cfg.model.backbone), cfg.model.backbone.get('frozen_dtype')
    if tuning.kind == FULL:
        return f'full, {cfg.optimizer.type}'
    if tuning.kind == FROZEN:
        return f'frozen, {rounded}' if rounded else 'frozen'
    if tuning.lora is not None:
        name = f'{"DoRA" if tuning.lora.use_dora else "LoRA"} r={tuning.lora.r}'
        few = len(tuning.blocks) < num_read(cfg.model.backbone)
        return f'{name}{f", {len(tuning.blocks)} blocks" if few else ""}, {rounded or "bf16"} base'
    count = len(tuning.blocks)
    name = 'last block' if count == 1 else f'last {count} blocks'
    if tuning.norms:
        name = f'{name} and norms' if count else 'norms'
    return f'{name}, {rounded} base' if rounded else name
