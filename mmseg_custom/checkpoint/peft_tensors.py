"""Tensors of peft's adapters -> adapters of our layers, among them the fused one of q, k and v.

Names may be those of any dialect (:mod:`.keys`), under any prefix. Adapters of q, k and v, each of
its own rank, become one, which is exact:

        A_q            B_q s_q   0         0
    A = A_k        B = 0         B_k s_k   0          s = alpha / r
        A_v            0         0         B_v s_v

and the one of a rank alone where all three have the same A, as in folders that are written here.
"""
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError, some_of
from .adapters import Adapter
from .keys import DIALECTS, natural_key
from .lazy import FLOATS, LazyStateDict, LazyTensor, compute, concatenate

ADAPTED = ('attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2')
PARTS = dict(lora_A='a', lora_B='b', lora_magnitude_vector='norms')


def adapters_of(weights: LazyStateDict, alpha: float, use_dora: bool, rank_stabilised: bool
                ) -> dict[str, Adapter]:
    """Returns the adapters of InternViT's layers by their native names, 'blocks.3.attn.qkv'.

    Args:
        weights: Tensors of a file that peft saved.
        alpha: Numerator of their factor.
        use_dora: Whether they have norms.
        rank_stabilised: Whether the factor is ``alpha / sqrt(r)``.

    Raises:
        InputError: If a tensor is of another layer or kind, is missing, or has another shape.
    """
    found = _find_parts(weights)
    adapters = {}
    for layer in sorted(found, key=natural_key):
        parts = [_adapter(layer, part, weights.path, alpha, use_dora, rank_stabilised)
                 if part else None for part in found[layer]]
        adapters[layer] = _fuse(layer, parts, weights.path)
    return adapters


def _find_parts(weights: LazyStateDict) -> dict[str, list[dict[str, LazyTensor]]]:
    """Finds the adapters of InternViT's layers among the tensors of a file.

    Returns:
        Native name of a layer -> tensors by kind of each of the layers that it is joined of.
    """
    found: dict[str, list[dict[str, LazyTensor]]] = {}
    unknown = []
    for name, tensor in weights.items():
        place = _place_of(name)
        if place is None:
            unknown.append(name)
            continue
        layer, position, count, kind = place
        parts = found.setdefault(layer, [{} for _ in range(count)])
        if len(parts) != count or kind in parts[position]:
            raise InputError(f'{weights.path} holds adapters of more than one network: {name}, and '
                             f'others of {layer}')
        parts[position][kind] = tensor
    if unknown or not found:
        raise InputError(f'{weights.path}: expected adapters of linear layers in blocks of an '
                         f'InternViT ({", ".join(ADAPTED)}), found {some_of(unknown) or "none"}')
    return found


def _place_of(name: str) -> tuple[str, int, int, str] | None:
    """Finds what a tensor is of: (native layer, position and count of its parts, kind)."""
    ending = re.search(r'\.(' + '|'.join(PARTS) + r')(\.default)?(\.weight)?$', name)
    if ending is None:
        return None
    module, kind = name[:ending.start()], PARTS[ending.group(1)]
    for dialect in DIALECTS:
        for native in ADAPTED:
            stems = dialect.stems(native)
            for position, stem in enumerate(stems):
                match = re.search(rf'(?:^|\.){re.escape(dialect.blocks)}([0-9]{{1,6}})\.'
                                  rf'{re.escape(stem)}$', module)
                if match:
                    return f'blocks.{int(match.group(1))}.{native}', position, len(stems), kind
    return None


def _adapter(name: str, part: Mapping[str, LazyTensor], path: str, alpha: float, use_dora: bool,
             rank_stabilised: bool) -> Adapter:
    """Makes the adapter of a layer of its own of tensors by kind."""
    wanted = [key for key, kind in PARTS.items() if kind != 'norms' or use_dora]
    for key, kind in PARTS.items():
        if (kind in part) != (key in wanted):
            raise InputError(f'{path}: {key} of {name} is '
                             + ('missing' if key in wanted else 'there without use_dora')
                             + ': save the adapters again')
    a, b, norms = part['a'], part['b'], part.get('norms')
    rank = a.shape[0] if a.shape else 0
    shapes = [part[PARTS[key]].shape for key in wanted]
    if not rank or len(a.shape) != 2 or len(b.shape) != 2 or b.shape[1] != rank or (
            norms is not None and norms.shape != b.shape[:1]) or not all(
            tensor.dtype in FLOATS for tensor in part.values()):
        raise InputError(f'{path}: tensors of {name} have shapes {", ".join(map(str, shapes))}: '
                         'expected (r, I), (O, r)' + ', (O,)' * use_dora + ' of floating point')
    return Adapter(a, b, alpha / (rank ** 0.5 if rank_stabilised else rank), norms)


def _fuse(layer: str, parts: Sequence[Adapter | None], path: str) -> Adapter:
    """Joins adapters of q, k and v to one of the fused layer; exact."""
    there = [part for part in parts if part is not None]
    if len(parts) == 1:
        return there[0]
    first = there[0]
    rows, inputs = first.b.shape[0], first.a.shape[1]
    if any(part.b.shape[0] != rows or part.a.shape[1] != inputs for part in there):
        raise InputError(f'{path}: adapters of q, k and v of {layer} have different sizes')
    norms = None if first.norms is None else concatenate([
        _no_norms(rows) if part is None or part.norms is None else part.norms for part in parts])
    if len(there) == len(parts) and all(_is_same(first, part) for part in there):
        return replace(first, b=concatenate([part.b for part in there]), norms=norms)
    return Adapter(concatenate([part.a for part in there]), _block_diagonal(parts), 1.0, norms)


def _is_same(first: Adapter, other: Adapter) -> bool:
    """Whether an adapter has the A and the factor of another."""
    return first.factor == other.factor and first.a.shape == other.a.shape and torch.equal(
        first.a.read(), other.a.read())


def _block_diagonal(parts: Sequence[Adapter | None]) -> LazyTensor:
    """Returns B (3 O, sum of the ranks) in float32, with the factors in it."""
    there = [part for part in parts if part is not None]
    rows = there[0].b.shape[0]

    def build(*matrices: Tensor) -> Tensor:
        given = iter(matrices)
        return torch.block_diag(*(torch.zeros(rows, 0) if part is None
                                  else next(given).float() * part.factor for part in parts))

    return compute(build, [part.b for part in there],
                   (rows * len(parts), sum(part.rank for part in there)), torch.float32)


def _no_norms(rows: int) -> LazyTensor:
    return LazyTensor.of(torch.full((rows,), float('nan')))
