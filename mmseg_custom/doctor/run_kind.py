"""What the config of a run decides of its engine, and of what runs under autograd."""
from mmcv import Config

from ..distributed.options import Engine
from ..distributed.parallelize import automatic_type
from ..engine.build import build_network
from ..engine.tuning import num_read
from ..models.backbone_options import backbone_option, traits_of
from .depth import first_under_autograd
from .run_shape import RunShape


def type_of(cfg: Config, shape: RunShape, engine: Engine) -> str:
    """Returns the type of the engine of a run, 'auto' resolved."""
    found = engine.type
    if found == 'auto':
        found = 'single' if shape.ranks == 1 else automatic_type(
            build_network(cfg, on_meta=True))[0]
    return unsharded_type(shape) if found == 'fsdp2' and not can_shard(cfg, shape) else found


def unsharded_type(shape: RunShape) -> str:
    """Returns the type of an engine in which each process has all weights."""
    return 'single' if shape.ranks == 1 else 'ddp'


def can_shard(cfg: Config, shape: RunShape) -> bool:
    """Returns whether a run can be sharded.

    Neither a cache nor weights of 8 bits go with that, nor a backbone that is not shardable.
    """
    backbone = cfg.model.backbone
    return shape.cached is None and not backbone.get('frozen_dtype') and (
        traits_of(backbone).is_shardable)


def recomputes(cfg: Config) -> bool:
    """Returns whether blocks of a run are under autograd, with activation checkpointing."""
    return num_under_autograd(cfg) > 0 and bool(cfg.model.backbone.get('with_cp', True))


def num_under_autograd(cfg: Config) -> int:
    """Returns the number of blocks of this package's backbone that run under autograd."""
    backbone = cfg.model.backbone
    traits = traits_of(backbone)
    if traits.changes_tokens:  # before the first block already
        return backbone_option(backbone, 'depth')
    return num_read(backbone) - first_under_autograd(cfg) if traits.is_tunable else 0
