"""What of a backbone is trained: everything, its last blocks, adapters in its blocks, or nothing.

    full         all weights
    last_blocks  train_last=N: the last N blocks that are read; train_norms=True: also all norms and
                 layer scales of the blocks before them
    lora         adapt=dict(type='lora', ...): adapters of linear layers, see :mod:`..layers.lora`
    frozen       freeze_vit=True

Blocks before the first one with trained weights stay in eval mode and run without autograd.
"""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from math import inf
from numbers import Real
from typing import Any

from torch import nn

from ..errors import InputError, hint, refuse_unknown
from ..layers.lora import LoraOptions, linear_names
from .backbone_options import backbone_option

FULL, LAST_BLOCKS, LORA, FROZEN = 'full', 'last_blocks', 'lora', 'frozen'
PARTLY = (LAST_BLOCKS, LORA)
KEY = 'model.backbone'
NORMS = ('norm1', 'norm2', 'q_norm', 'k_norm', 'ls1', 'ls2')  # modules that train_norms trains


def tuning_of(backbone: Mapping) -> str:
    """Returns which of the four the options of a backbone, as a config has them, ask for."""
    if backbone.get('adapt') is not None:
        return LORA
    if backbone.get('train_last') is not None:
        return LAST_BLOCKS
    return FROZEN if backbone_option(backbone, 'freeze_vit') else FULL


@dataclass(frozen=True)
class Tuning:
    """What is trained of the blocks of a backbone.

    Attributes:
        kind: One of the four above.
        blocks: Indices of the blocks that are trained, or adapted, ascending.
        first_trained: Index of the first block with trained weights; without any, the number of
            blocks that are read.
        norms: Indices of blocks whose norms and layer scales are trained, with or without the rest.
        lora: Options of the adapters, of 'lora'.
        adapt_folder: Folder of peft's that has the values of the adapters at first.
    """
    kind: str
    blocks: Sequence[int]
    first_trained: int
    norms: Sequence[int] = ()
    lora: LoraOptions | None = None
    adapt_folder: str | None = None

    @classmethod
    def of(cls, read: int, freeze_vit: bool = False, adapt: Mapping | None = None,
           train_last: int | None = None, train_norms: bool = False) -> 'Tuning':
        """Reads the options of a backbone.

        Args:
            read: Number of its blocks that are read.
            freeze_vit: See :class:`.backbones.intern_vit.InternViT6B`, as for the others.
            adapt: Options of adapters.
            train_last: Number of blocks.
            train_norms: Whether norms are trained.

        Raises:
            InputError: If they contradict each other, or one is invalid.
        """
        kind = tuning_of(dict(freeze_vit=freeze_vit, adapt=adapt, train_last=train_last))
        if kind == LORA and train_last is not None:
            raise InputError(f'{KEY}.adapt and {KEY}.train_last={train_last!r}: adapters are for '
                             'blocks that are frozen; leave one of them out')
        if train_norms and kind == LORA:
            raise InputError(f'{KEY}.train_norms={train_norms!r} with {KEY}.adapt: adapters are '
                             'for blocks that are frozen; leave one of them out')
        if train_norms and kind != LAST_BLOCKS:
            raise InputError(f'{KEY}.train_norms={train_norms!r} without train_last: set '
                             f'{KEY}.train_last to the number of blocks that are trained, 0 for '
                             'norms alone')
        if kind == LORA:
            blocks, options = _read_adapt(adapt, read)
            return cls(kind, blocks, blocks[0], lora=options, adapt_folder=_read_folder(adapt))
        if kind == LAST_BLOCKS:
            return _last_blocks(read, train_last, train_norms, freeze_vit)
        if kind == FROZEN:
            return cls(kind, (), read)
        return cls(kind, range(read), 0)

    def trains(self, block: int, name: str) -> bool:
        """Returns whether a weight that a block has by itself, not of an adapter, is trained."""
        if self.kind != LAST_BLOCKS:
            return self.kind == FULL
        return block in self.blocks or block in self.norms and (
            not set(NORMS).isdisjoint(name.split('.')))

    @property
    def record(self) -> dict[str, Any] | None:
        """Plain values that a checkpoint says its adapters are by; None if there are none."""
        if self.lora is None:
            return None
        options = self.lora
        return dict(type='lora', r=options.r, alpha=options.alpha, targets=list(options.targets),
                    blocks=list(self.blocks), use_dora=options.use_dora)


def check_adapters(block: nn.Module, options: LoraOptions, frozen_dtype: str | None) -> None:
    """Checks that adapters go with a block, and that they can be made.

    Raises:
        InputError: If a target matches no layer, the rank is too large, DoRA is to norm weights of
            8 bits, or peft is missing.
    """
    layers = {name: block.get_submodule(name) for name in linear_names(block)}
    known = sorted({name.rpartition('.')[2] for name in layers})
    for target in options.targets:
        sizes = [(name, min(layer.in_features, layer.out_features))
                 for name, layer in layers.items() if f'.{name}'.endswith(f'.{target}')]
        if not sizes:
            raise InputError(f'{KEY}.adapt.targets: no linear layer of a block is called '
                             f'{target!r}{hint(target, [*known, *layers])}: expected some of '
                             f'{", ".join(known)}')
        name, largest = min(sizes, key=lambda each: each[1])
        if options.r > largest:
            raise InputError(f'{KEY}.adapt.r={options.r}: expected 1 to {largest}, the shorter '
                             f'side of the weights of {name}')
    if options.use_dora and frozen_dtype is not None:
        raise InputError(f'{KEY}.adapt.use_dora=True with frozen_dtype={frozen_dtype!r}: DoRA '
                         'computes norms of the weights in floating point; leave one of them out')
    if find_spec('peft') is None:
        raise InputError(f'{KEY}.adapt needs the library peft, which is not installed: pip install '
                         'peft')


def _read_adapt(adapt: Any, read: int) -> tuple[list[int], LoraOptions]:
    """Reads ``adapt=dict(...)``: returns the blocks, and the options of their adapters."""
    if not isinstance(adapt, Mapping):
        raise InputError(f"{KEY}.adapt={adapt!r}: expected dict(type='lora', ...)")
    if adapt.get('type') != 'lora':
        raise InputError(f"{KEY}.adapt.type={adapt.get('type')!r}: expected 'lora'")
    own = [field.name for field in fields(LoraOptions)]
    refuse_unknown(f'{KEY}.adapt', adapt, ['type', *own, 'blocks', 'pretrained'])
    given = {name: adapt[name] for name in own if name in adapt}
    if 'targets' in given:
        targets = given['targets']
        if isinstance(targets, str) or not isinstance(targets, Sequence) or not targets or not all(
                isinstance(each, str) for each in targets):
            raise InputError(f'{KEY}.adapt.targets={targets!r}: expected a list of names, e.g. '
                             f'{list(LoraOptions.targets)}')
        given['targets'] = tuple(targets)
    options = LoraOptions(**given)
    for name, holds, expected in (
            ('r', _is_count(options.r) and options.r > 0, 'a whole number of 1 or more'),
            ('alpha', _is_real(options.alpha) and 0 < options.alpha < inf, 'a number above 0'),
            ('dropout', _is_real(options.dropout) and 0 <= options.dropout < 1,
             'a probability, from 0 to below 1'),
            ('use_dora', isinstance(options.use_dora, bool), 'True or False')):
        if not holds:
            raise InputError(f'{KEY}.adapt.{name}={getattr(options, name)!r}: expected {expected}')
    return _read_blocks(adapt.get('blocks', 'all'), read), options


def _read_folder(adapt: Any) -> str | None:
    folder = adapt.get('pretrained')
    if folder is not None and not isinstance(folder, str):
        raise InputError(f"{KEY}.adapt.pretrained={folder!r}: expected the path of a folder of "
                         "peft's")
    return folder or None


def _read_blocks(blocks: Any, read: int) -> list[int]:
    if blocks == 'all':
        return list(range(read))
    if isinstance(blocks, str) or not isinstance(blocks, Sequence) or not blocks or (
            not all(_is_count(each) and each < read for each in blocks)) or (
            len(set(blocks)) < len(blocks)):
        raise InputError(f"{KEY}.adapt.blocks={blocks!r}: expected 'all', or numbers of blocks, "
                         f'each once, between 0 and {read - 1}, the last one that is read '
                         '(out_indices)')
    return sorted(blocks)


def _last_blocks(read: int, count: Any, norms: bool, freeze_vit: bool) -> Tuning:
    if freeze_vit:
        raise InputError(f'{KEY}.train_last={count!r} with freeze_vit=True, which freezes all '
                         'blocks: set freeze_vit=False; what stands before the last blocks is '
                         'frozen all the same')
    if not _is_count(count) or count > read or count == 0 and not norms:
        more = '' if count != 0 else ' (0 goes with train_norms=True, for norms alone)'
        raise InputError(f'{KEY}.train_last={count!r}: expected a number of blocks from 1 to '
                         f'{read}, which are read (out_indices){more}')
    blocks = range(read - count, read)
    return Tuning(LAST_BLOCKS, blocks, 0 if norms else blocks[0], range(read if norms else 0))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
