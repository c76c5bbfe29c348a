"""What the states of a training run take on each GPU, by part; nothing is run, shapes are enough.

    frozen      weights that are not trained, and buffers
    masters     trained weights as they are stored
    gradients   of the trained weights
    optimizer   its moments
    working     casts or gathered weights of the block at work, and its gradients on their way

Activations are no part of this. FSDP2 shares the first four out over the GPUs, along the first
axis of each tensor; the figures are those of the GPU that gets most.
"""
from collections.abc import Iterable
from dataclasses import dataclass, fields
from math import prod

import torch
from torch import Tensor, nn

from .parallelize import Engine, heads, read_blocks

FP32 = 4  # bytes


@dataclass(frozen=True)
class Storage:
    """Bytes for each trained weight of the backbone; heads are float32, but for their moments."""
    masters: float = FP32
    gradients: float = FP32
    optimizer: float = 2 * FP32
    optimizer_of_heads: float = 2 * FP32


@dataclass(frozen=True)
class StateBytes:
    """Bytes by part; see the module.

    Attributes:
        offloaded: Whether all but ``working`` are in the host's memory (``engine.cpu_offload``).
    """
    frozen: int
    masters: int
    gradients: int
    optimizer: int
    working: int
    offloaded: bool = False

    def parts(self) -> dict[str, int]:
        """The parts by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != 'offloaded'}

    @property
    def on_gpu(self) -> int:
        """Bytes on the GPU."""
        return self.working if self.offloaded else sum(self.parts().values())

    @property
    def on_host(self) -> int:
        """Bytes in the host's memory, for this GPU."""
        return sum(self.parts().values()) - self.working if self.offloaded else 0


def state_bytes(model: nn.Module, kind: str, ranks: int, engine: Engine | None = None,
                dtype: torch.dtype = torch.bfloat16, moments: int = 2,
                storage: Storage | None = None) -> StateBytes:
    """Counts the bytes of a segmentor's states on one GPU.

    Args:
        model: With ``requires_grad`` as it will train; it may be on the meta device.
        kind: 'single', 'ddp' or 'fsdp2'.
        ranks: GPUs that share the states under 'fsdp2': all, or with ``engine.hybrid`` those of a
            node. Without effect elsewhere.
        engine: Default: :class:`Engine`'s own.
        dtype: That the backbone computes in; its frozen weights are stored in it.
        moments: Tensors that the optimizer keeps for a weight: 2 for Adam and AdamW.
        storage: Of the backbone's trained weights; default: float32 in all.
    """
    engine = engine or Engine()
    shared = ranks if kind == 'fsdp2' else 1
    storage = storage or Storage(optimizer=moments * FP32, optimizer_of_heads=moments * FP32)
    of_heads = Storage(optimizer=storage.optimizer_of_heads)
    backbone = [p for _, p in model.backbone.named_parameters()]
    trained = [p for p in backbone if p.requires_grad]
    trained_heads = [p for head in heads(model) for p in head.parameters() if p.requires_grad]
    frozen_heads = [p for head in heads(model) for p in head.parameters() if not p.requires_grad]
    frozen = dtype.itemsize * share(_frozen(backbone), shared) + FP32 * share(frozen_heads, shared)
    counts = share(trained, shared), share(trained_heads, shared)

    def both(name: str) -> int:
        return round(sum(n * getattr(s, name) for n, s in zip(counts, (storage, of_heads))))

    if kind == 'fsdp2':
        working = _gathered(model, engine, dtype)
    else:  # weights that are stored in what they compute in need no casts
        working = _cast(model, engine, dtype) if storage.masters != dtype.itemsize else 0
    return StateBytes(frozen + sum(b.nbytes for b in model.buffers()), both('masters'),
                      both('gradients'), both('optimizer'), working,
                      kind == 'fsdp2' and engine.cpu_offload)


def storage_of(optimizer: dict) -> Storage:
    """The bytes for each trained weight of the backbone under the optimizer of a config."""
    if optimizer.get('type') == 'LowMemoryAdamW':
        if optimizer.get('state') == 'bf16':
            return Storage(2, 2, 4, 8)
        quantised = 2 * (1 + FP32 / 256)  # a scale for 256 values
        return Storage(2, 2, quantised, quantised)
    both = moments_of(optimizer) * FP32
    return Storage(optimizer=both, optimizer_of_heads=both)


def moments_of(optimizer: dict) -> int:
    """The tensors that the optimizer of a config keeps for each weight."""
    if optimizer.get('type', 'AdamW').startswith('SGD'):
        return 1 if optimizer.get('momentum') else 0
    return 2


def share(tensors: Iterable[Tensor], ranks: int) -> int:
    """Elements of the largest share, when each tensor is dealt out along its first axis."""
    return sum(-(-t.shape[0] // ranks) * prod(t.shape[1:]) if t.ndim else 1 for t in tensors)


def _gathered(model: nn.Module, engine: Engine, dtype: torch.dtype) -> int:
    """Bytes of what FSDP2 has gathered at once.

    Of a block: its weights and those of the blocks ahead, the buffer that they arrive in, its
    gradients, and their float32 copy on the way to be reduced. Of a head the same, in float32, and
    at another time. What is neither stays gathered over the step.
    """
    def at_work(parameters: list[Tensor], size: int, ahead: int) -> int:
        count, trained = _count(parameters), _count(p for p in parameters if p.requires_grad)
        return count * size * (2 + ahead) + trained * (size + FP32)

    blocks = list(model.backbone.blocks)
    in_blocks = {id(p) for block in blocks for p in block.parameters()}
    rest = [p for p in model.backbone.parameters() if id(p) not in in_blocks]
    rest_bytes = dtype.itemsize * (_count(rest) + _count(p for p in rest if p.requires_grad))
    return rest_bytes + max(
        [at_work(list(b.parameters()), dtype.itemsize, engine.prefetch) for b in blocks]
        + [at_work(list(head.parameters()), FP32, 0) for head in heads(model)])


def _cast(model: nn.Module, engine: Engine, dtype: torch.dtype) -> int:
    """Bytes of the casts of trained float32 weights, where every GPU has all of them.

    A block that is recomputed needs them while it is at work, another from its forward pass to its
    backward pass; gradients of casts are one block's.
    """
    backbone = model.backbone
    blocks = read_blocks(model)
    sizes = [_count(p for p in block.parameters() if p.requires_grad) for block in blocks]
    recomputed = getattr(backbone, 'with_cp', False)
    kept = [size for i, size in enumerate(sizes)
            if not (recomputed and i % engine.checkpoint_every == 0)]
    in_blocks = {id(p) for block in backbone.blocks for p in block.parameters()}
    rest = _count(p for p in backbone.parameters() if p.requires_grad and id(p) not in in_blocks)
    return dtype.itemsize * (sum(kept) + rest + 2 * max(sizes, default=0))


def _frozen(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [p for p in parameters if not p.requires_grad]


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(p.numel() for p in parameters)
