"""Which blocks of a network are equal, and the shallower networks that have all kinds of them.

The blocks of a vision transformer have the same shapes. In a training they differ in what is
trained of them (nothing, adapters, norms, all), in whether they run under autograd, in whether they
are recomputed, and in whether queries of a head pass them as well. A stretch is a row of blocks
that agree in all of that. Each additional block of a stretch adds the same number of bytes at a
given site of a step. Within a stretch, memory only rises or only falls, so that the peak is at an
end of one. Blocks that queries pass are few, and are all traced. A network with a few blocks of
each long stretch, and one more network for each with one block more in it, therefore determine the
network at its real depth (:mod:`.step_trace`).
"""
import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from mmcv import Config

from ..distributed.options import Engine
from ..engine.tuning import num_deferred, num_read, tuning_in
from ..models.backbone_options import backbone_option
from ..models.tuning import LAST_BLOCKS, LORA

EDGE = 2  # blocks at either end of a stretch that are told apart; more where FSDP2 prefetches more


@dataclass(frozen=True)
class Stretch:
    """Consecutive blocks that are equal.

    Attributes:
        kind: 'frozen' (it runs without autograd), 'passed' (frozen, and gradients pass it), 'norms'
            (those are trained), or 'trained' (weights or adapters).
        recomputed: Whether the engine recomputes the activations of all or every k-th of them.
        length: Number of blocks.
        read: Positions, from 0, of those whose output is read, without the network's last.
        queried: Whether queries of a head pass them, with predictions in between.
    """
    kind: str
    recomputed: bool
    length: int
    read: tuple[int, ...] = ()
    queried: bool = False


def first_under_autograd(cfg: Config) -> int:
    """Returns the index of the first block that runs under autograd; the number read if none."""
    backbone = cfg.model.backbone
    return 0 if backbone.get('unfreeze_pos_embed') else tuning_in(backbone).first_trained


def stretches_of(cfg: Config, engine: Engine, checkpointing: bool) -> list[Stretch]:
    """Returns the stretches of the blocks that are read.

    Args:
        cfg: Config of the run.
        engine: Engine, which says how many blocks are recomputed.
        checkpointing: Whether the backbone's activations are recomputed.
    """
    tuning, start = tuning_in(cfg.model.backbone), first_under_autograd(cfg)
    inner, read = _out_indices(cfg)[:-1], num_read(cfg.model.backbone)
    first_queried = read - num_deferred(cfg.model)

    def kind(i: int) -> tuple[str, bool, bool]:
        queried = i >= first_queried
        recomputed = checkpointing and i >= start and (
            engine.checkpoint_blocks is None or i - start < engine.checkpoint_blocks)
        if i in tuning.blocks:
            return 'trained', recomputed, queried
        name = 'frozen' if i < start else 'norms' if tuning.norms else 'passed'
        return name, recomputed, queried

    found, first = [], 0
    for (name, recomputed, queried), blocks in groupby(range(read), kind):
        length = len(list(blocks))
        positions = tuple(i - first for i in inner if first <= i < first + length)
        found.append(Stretch(name, recomputed, length, positions, queried))
        first += length
    return found


def traced_networks(stretches: Sequence[Stretch], every_kth: int,
                    edge: int) -> list[list[Stretch]] | None:
    """Returns the shallower networks to trace; None if tracing the network itself takes less.

    The first has the least number of blocks; each of the others has additional blocks in one
    stretch. Where every k-th block is recomputed, k blocks are added, and a multiple of k is left
    out.
    """
    least, longer = [], []
    for i, stretch in enumerate(stretches):
        step = every_kth if stretch.recomputed else 1
        inner = len(stretch.read)  # they come right after the first edge
        length = 2 * edge + inner
        length += (stretch.length - length) % step
        if stretch.length <= length + step or stretch.queried:
            least.append(stretch)
            continue
        least.append(replace(stretch, length=length, read=tuple(range(edge, edge + inner))))
        longer.append((i, length + step))
    networks = [least] + [
        [*least[:i], replace(least[i], length=length), *least[i + 1:]] for i, length in longer]
    blocks = sum(each.length for network in networks for each in network)
    return networks if longer and blocks < sum(each.length for each in stretches) else None


def factors(networks: Sequence[Sequence[Stretch]], stretches: Sequence[Stretch]) -> list[int]:
    """Returns how often a network has the additional blocks of each of ``traced_networks``."""
    least, *deeper = networks
    return [(whole.length - few.length) // (more.length - few.length)
            for network in deeper for whole, few, more in zip(stretches, least, network)
            if more.length > few.length]


def with_stretches(cfg: Config, stretches: Sequence[Stretch]) -> Config:
    """Returns a config whose network has the same kinds of stretches, of other lengths."""
    indices: list[int] = []
    adapted: list[int] = []
    first = 0
    for stretch in stretches:
        indices += [first + i for i in stretch.read]
        if stretch.kind == 'trained':
            adapted += range(first, first + stretch.length)
        first += stretch.length
    kind = tuning_in(cfg.model.backbone).kind
    cfg = with_depth(cfg, [*indices, first - 1])
    if kind == LORA:
        cfg.model.backbone.adapt = dict(cfg.model.backbone.adapt, blocks=adapted)
    elif kind == LAST_BLOCKS:
        cfg.model.backbone.train_last = len(adapted)
    return cfg


def with_depth(cfg: Config, out_indices: Sequence[int]) -> Config:
    """Returns a config that reads other blocks, and has as many unread ones as before."""
    cfg = copy.deepcopy(cfg)  # Config.copy shares what is inside
    backbone = cfg.model.backbone
    unread = backbone_option(backbone, 'depth') - num_read(backbone)
    backbone.depth = out_indices[-1] + 1 + unread
    backbone.out_indices = list(out_indices)
    if not isinstance(backbone.get('use_flash_attn', True), bool):
        backbone.use_flash_attn = backbone.use_flash_attn[:backbone.depth]
    return cfg


def recomputed_blocks(stretches: Sequence[Stretch], engine: Engine) -> int | None:
    """Returns the engine's number of recomputed blocks for these stretches."""
    if engine.checkpoint_blocks is None:
        return None
    return sum(each.length for each in stretches if each.recomputed)


def _out_indices(cfg: Config) -> list[int]:
    return list(backbone_option(cfg.model.backbone, 'out_indices'))
