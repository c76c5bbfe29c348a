"""Bytes of a training run's states on each GPU, by part, from the shapes of a model alone.

    frozen           weights that are not trained, and buffers
    master_weights   trained weights as they are stored
    gradients        gradients of the trained weights
    optimizer        the optimizer's state
    working          casts or gathered weights of the block at work, and its unreduced gradients

Activations are not counted. FSDP2 shards the first four over the GPUs, along the first axis of each
tensor; the figures are those of the GPU with the largest shards.
"""
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, prod
from typing import NamedTuple

import torch
from mmseg.core import build_optimizer
from torch import Tensor, nn

from ..optim import low_memory
from ..units import GIB
from .options import AUTO, REDUCE_DTYPES, Engine
from .parallelize import read_blocks
from .precision import heads

FP32 = 4  # bytes
RESERVE = GIB  # CUDA context, NCCL, and what a GPU named "80 GB" lacks of it
FRAGMENTATION = 0.03  # share of the memory that PyTorch's allocator loses between blocks
# Options that concern groups of parameters, or how a step is computed; none adds state.
STATELESS = ('constructor', 'paramwise_cfg', 'foreach', 'fused', 'capturable')


@dataclass(frozen=True)
class Storage:
    """Bytes per trained weight of the backbone; heads differ in the optimizer, and are float32."""
    master_weights: float = FP32
    gradients: float = FP32
    optimizer: float = 2 * FP32
    optimizer_of_heads: float = 2 * FP32


def usable_bytes(memory: int) -> int:
    """Returns the bytes that tensors may fill of a GPU's memory."""
    return max(0, int(memory * (1 - FRAGMENTATION)) - RESERVE)


def memory_for(count: int) -> int:
    """Returns the memory of a GPU of which tensors may fill so many bytes."""
    return ceil((count + RESERVE) / (1 - FRAGMENTATION))


class StateBytes(NamedTuple):
    """Bytes by part; with ``engine.cpu_offload`` only ``working`` is on the GPU."""
    frozen: int
    master_weights: int
    gradients: int
    optimizer: int
    working: int


def state_bytes(model: nn.Module, kind: str, ranks: int, engine: Engine = AUTO,
                dtype: torch.dtype = torch.bfloat16,
                storage: Storage = Storage()) -> StateBytes:
    """Counts the bytes of a segmentor's states on one GPU.

    Args:
        model: Segmentor with ``requires_grad`` set as for training; it may be on the meta device.
        kind: 'single', 'ddp' or 'fsdp2'.
        ranks: GPUs that share the states under 'fsdp2': all, or with ``engine.hybrid`` those of a
            node. Without effect elsewhere.
        engine: Options.
        dtype: Dtype that the backbone computes in and stores frozen weights in.
        storage: Bytes per trained weight, from :func:`storage_of`; default: those of AdamW.
    """
    shared = ranks if kind == 'fsdp2' else 1
    of_heads = Storage(optimizer=storage.optimizer_of_heads)
    backbone = list(model.backbone.parameters())
    in_heads = [p for head in heads(model) for p in head.parameters()]
    counts = [share((p for p in part if p.requires_grad), shared) for part in (backbone, in_heads)]
    rounded = [p for p in backbone if not p.is_floating_point()]  # to 8 bits
    frozen = share(rounded, shared) + sum(
        size * share((p for p in part if not p.requires_grad and p.is_floating_point()), shared)
        for part, size in ((backbone, dtype.itemsize), (in_heads, FP32)))

    def both(name: str) -> int:
        return round(sum(n * getattr(s, name) for n, s in zip(counts, (storage, of_heads))))

    if kind == 'fsdp2':
        working = _gathered(model, engine, dtype)
    else:  # weights that are stored in the dtype that they compute in need no casts
        working = _casts(model, engine, dtype) if storage.master_weights != dtype.itemsize else 0
    return StateBytes(frozen + sum(b.nbytes for b in model.buffers()), both('master_weights'),
                      both('gradients'), both('optimizer'), working)


def storage_of(optimizer: dict) -> Storage:
    """Returns the bytes per trained weight under the optimizer of a config."""
    if optimizer.get('type') == low_memory.NAME:
        if optimizer.get('state') == 'bf16':
            return Storage(2, 2, 4, 8)
        quantised = 2 * (1 + FP32 / 256)  # a scale for 256 values
        return Storage(2, 2, quantised, quantised)
    both = moments_of(optimizer) * FP32
    return Storage(optimizer=both, optimizer_of_heads=both)


def moments_of(optimizer: dict) -> int:
    """Returns the number of tensors that the optimizer of a config keeps per weight.

    Takes a step with it on a module of one weight matrix, whatever optimizer it is: some take
    matrices only.
    """
    if optimizer['type'] == low_memory.NAME:  # an AdamW; torchao may not be installed here
        return 2
    options = {name: value for name, value in optimizer.items() if name not in STATELESS}
    module = nn.Linear(3, 2, bias=False)
    built = build_optimizer(module, options)
    module.weight.grad = torch.zeros(2, 3)
    built.step()
    return sum(isinstance(value, Tensor) and value.shape == (2, 3)
               for value in built.state[module.weight].values())


def share(tensors: Iterable[Tensor], ranks: int) -> int:
    """Counts the elements of the largest shard of tensors that are split along their first axis."""
    return sum(-(-t.shape[0] // ranks) * prod(t.shape[1:]) if t.ndim else 1 for t in tensors)


def _gathered(model: nn.Module, engine: Engine, dtype: torch.dtype) -> int:
    """Counts the bytes that FSDP2 has gathered at once.

    Of a block: its weights and those of the blocks ahead, the buffer that they arrive in, its
    gradients, and their copy on the way to be reduced. Of a head the same, in float32, and at
    another time. Parameters outside of blocks and heads stay gathered over the step; where weights
    are kept for the backward pass, so do those of all blocks that are read.
    """
    def at_work(parameters: list[Tensor], size: int, gathered: int, reduced: int = FP32) -> int:
        count, trained = _count(parameters), _count(p for p in parameters if p.requires_grad)
        return count * size * gathered + trained * (size + reduced)

    rest = _outside_blocks(model.backbone)
    rest_bytes = dtype.itemsize * (_count(rest) + _count(p for p in rest if p.requires_grad))
    ahead, reduced = 2 + engine.prefetch, REDUCE_DTYPES[engine.reduce_dtype].itemsize
    if engine.reshard_after_forward is False:
        rest_bytes += dtype.itemsize * sum(_count(b.parameters()) for b in read_blocks(model))
        ahead = 1
    return rest_bytes + max(
        [at_work(list(b.parameters()), dtype.itemsize, ahead, reduced)
         for b in getattr(model.backbone, 'blocks', ())]
        + [at_work(list(head.parameters()), FP32, 2) for head in heads(model)])


def _casts(model: nn.Module, engine: Engine, dtype: torch.dtype) -> int:
    """Counts the bytes of the casts of master weights where every GPU has all of them.

    A block that is recomputed needs them while it is at work, another from its forward pass to its
    backward pass; gradients of casts are one block's.
    """
    sizes = [_count(p for p in block.parameters() if p.requires_grad)
             for block in read_blocks(model)]
    recomputed = getattr(model.backbone, 'with_cp', False)
    first = getattr(model.backbone, 'first_under_autograd', 0)
    kept = [size for i, size in enumerate(sizes[first:])
            if not (recomputed and engine.recomputes(i))]
    rest = _count(p for p in _outside_blocks(model.backbone) if p.requires_grad)
    return dtype.itemsize * (sum(kept) + rest + 2 * max(sizes, default=0))


def _outside_blocks(backbone: nn.Module) -> list[Tensor]:
    in_blocks = {id(p) for block in getattr(backbone, 'blocks', ()) for p in block.parameters()}
    return [p for p in backbone.parameters() if id(p) not in in_blocks]


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(p.numel() for p in parameters)
