"""Follows the memory of a training step that is run on fake tensors, allocation by allocation.

Fake tensors have shapes and dtypes and no memory: the real network runs its real step at its real
size in seconds, on any machine. The tracker stands between it and them and writes down when each
storage comes and goes, what kind of thing it is, and how much arithmetic is done.
"""
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from ..losses import upsampled

aten = torch.ops.aten
AllocationSite = tuple[str, int]  # a phase of the step, and a number in it
KINDS = ('weights', 'masters', 'gradients', 'optimizer', 'activations', 'head', 'workspace')


class MemoryTracker(TorchDispatchMode):
    """Writes down the storages of all tensors that are made while it is active.

    Args:
        copying_collectives: Whether a collective works on a copy of its larger side, as gloo's do.

    Attributes:
        where: What a forward pass is making now: 'activations' or 'head'.
        kinds: Storage number -> its kind, one of ``KINDS``; may be corrected afterwards.
        events: (storage number, bytes that came or, negative, went), in order.
        places: (number of events before it, place), in order.
        flops: Dtype -> floating-point operations of matrix products, convolutions and attention.
        moved_bytes: That all other operations read and write.
    """

    def __init__(self, copying_collectives: bool = False):
        super().__init__()
        self.copying_collectives = copying_collectives
        self.where = 'workspace'
        self.kinds: list[str] = []
        self.events: list[tuple[int, int]] = []
        self.places: list[tuple[int, AllocationSite]] = []
        self.flops: Counter = Counter()
        self.moved_bytes = 0
        self._live: dict[int, tuple[int, weakref.ref]] = {}  # address -> number, watch
        self._resize = torch.UntypedStorage.resize_

    def __enter__(self) -> 'MemoryTracker':
        tracker, resize = self, self._resize

        def resize_(storage: torch.UntypedStorage, size: int) -> None:
            before = storage.nbytes()
            resize(storage, size)
            tracker._resized(storage, size - before)

        torch.UntypedStorage.resize_ = resize_  # FSDP2 frees and gathers weights by it
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        torch.UntypedStorage.resize_ = self._resize
        super().__exit__(*error)

    def tag(self, tensors: Iterable[Tensor], kind: str) -> None:
        """Says what the storages of tensors are; they are noted if they were not yet."""
        for tensor in tensors:
            self.kinds[self._note(tensor, kind)] = kind

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor's storage."""
        return self._note(tensor, self.where)

    def at(self, phase: str, number: int = 0) -> None:
        """Says that a place begins: 'forward', 'backward' or 'optimizer', and a number in it."""
        self.places.append((len(self.events), (phase, number)))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.prim.device.default:
            return args[0].fake_device
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it comes again, as what is done to the shard
        if func is aten._local_scalar_dense.default:  # no values here; 1 keeps averages finite
            return 1.0 if args[0].is_floating_point() else 1
        if func is aten.index.Tensor:
            args = (args[0], _without_masks(args[1]), *args[2:])
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        kind = self._kind(func, args)
        for tensor in tree_leaves(out):
            if _has_memory(tensor):
                self._note(tensor, kind)
        self._retag(func, args, kwargs)
        self._count(func, args, kwargs, out)
        return out

    def _note(self, tensor: Tensor, kind: str) -> int:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._live:
            return self._live[address][0]
        number = len(self.kinds)
        self.kinds.append(kind)
        size = [storage.nbytes()]

        def gone(_: object) -> None:
            self.events.append((number, -size[0]))
            self._live.pop(address, None)

        self.events.append((number, size[0]))
        self._live[address] = (number, weakref.ref(storage, gone), size)
        return number

    def _resized(self, storage: torch.UntypedStorage, change: int) -> None:
        entry = self._live.get(storage._cdata)
        if entry is not None:
            self.events.append((entry[0], change))
            entry[2][0] += change

    def _kind(self, func, args: tuple) -> str:
        """What an operation's new storages are, as far as can be told now."""
        if func is aten._to_copy.default and self.kinds[self.number(args[0])] in (
                'masters', 'weights'):
            return 'weights'
        backward = torch._C._current_graph_task_id() != -1 and not torch.is_grad_enabled()
        return 'workspace' if backward else self.where

    def _retag(self, func, args: tuple, kwargs: dict) -> None:
        """FSDP2 makes its buffers with plain operations; what uses them tells what they are."""
        name = str(func)
        if not name.startswith(('fsdp.', 'c10d.')):
            return
        tensors = [t for t in tree_leaves((args, kwargs)) if _has_memory(t)]
        gathers = 'gather' in name or 'split_with_sizes_copy' in name
        for tensor in tensors:
            number = self.number(tensor)
            if self.kinds[number] not in ('masters', 'gradients', 'optimizer'):
                self.kinds[number] = 'weights' if gathers else 'workspace'
        if self.copying_collectives and name.startswith('c10d.') and tensors:
            largest = max(tensor.nbytes for tensor in tensors)
            self.kinds.append('workspace')
            self.events += [(len(self.kinds) - 1, largest), (len(self.kinds) - 1, -largest)]

    def _count(self, func, args: tuple, kwargs: dict, out: object) -> None:
        formula = flop_registry.get(func._overloadpacket) or _CPU_ATTENTION.get(
            func._overloadpacket)
        if formula is not None:
            self.flops[args[0].dtype] += formula(*args, **kwargs, out_val=out)
        elif not func.is_view:
            self.moved_bytes += sum(t.nbytes for t in tree_leaves((args, kwargs, out))
                                    if _has_memory(t))


def peaks(tracker: MemoryTracker, *, always: Iterable[int] = (), away: Iterable[int] = ()
          ) -> dict[AllocationSite, dict[str, int]]:
    """Replays a tracker.

    Args:
        tracker: After the step.
        always: Storages that live all the time in a run, though not in its first step.
        away: Storages that are elsewhere, in the host's memory.

    Returns:
        For each place that the tracker was told of, bytes by kind at the moment at which most is
        there. What lived before the first place is counted.
    """
    always, skipped = set(always) - set(away), {*always, *away}
    sizes = Counter()
    for number, change in tracker.events:
        if number in always and change > 0:
            sizes[number] = max(sizes[number], change)
    now = Counter(dict.fromkeys(KINDS, 0))
    for number, size in sizes.items():
        now[tracker.kinds[number]] += size
    starts = dict(tracker.places)
    found: dict[AllocationSite, dict[str, int]] = {}
    place = None
    for i, (number, change) in enumerate([*tracker.events, (None, 0)]):
        if i in starts:
            place = starts[i]
            if sum(now.values()) > sum(found.get(place, {}).values()):
                found[place] = dict(now)
        if number is not None and number not in skipped:
            now[tracker.kinds[number]] += change
        if place is not None and change > 0 and sum(now.values()) > sum(found[place].values()):
            found[place] = dict(now)
    return found


@contextmanager
def simulate_gpu() -> Iterator[None]:
    """Lets what runs otherwise on a GPU than on the CPU run here as it does there.

    Operations that are one kernel, and the sizes of strips.
    """
    with _GPUFunctions(), upsampled.strips_sized_for('cuda'):
        yield


class _GPUFunctions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.rms_norm and hasattr(aten, '_fused_rms_norm'):
            return _FusedRMSNorm.apply(args[0], args[2])
        return func(*args, **(kwargs or {}))


class _FusedRMSNorm(torch.autograd.Function):
    """What torch's fused RMSNorm keeps: its input, and the float32 root of each token."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        root = x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
        ctx.save_for_backward(x, weight, root)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight)


def _has_memory(value: object) -> bool:
    """Whether a value is a tensor with memory of its own; a DTensor's is that of its shard."""
    return isinstance(value, Tensor) and not isinstance(value, DTensor)


def _without_masks(indices: list) -> list:
    """Takes all elements where a mask would choose some: their number is not known here."""
    plain = []
    for index in indices:
        if index is not None and index.dtype == torch.bool:
            plain += [torch.empty(index.numel(), dtype=torch.long, device=index.device)
                      ] * index.dim()
        else:
            plain.append(index)
    return plain


def _cpu_attention(query, key, value, *_, out_val=None, **__) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _cpu_attention_backward(grad, query, key, value, *_, out_val=None, **__) -> int:
    return sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


_CPU_ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _cpu_attention_backward}
