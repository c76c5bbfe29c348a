"""Tracks the memory of a training step on fake tensors, allocation by allocation.

Fake tensors have shapes and dtypes but no memory, so that the real network takes its real step at
its real size in seconds, on any machine. The tracker sees every operation of that step and records
when each storage is allocated, resized and freed, what kind of memory it is, and how much
arithmetic is done.
"""
import weakref
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..layers.resize import is_channels_last
from .kernels import FLOP_FORMULAS, Kernel, KernelCall, describe_call

aten = torch.ops.aten
AllocationSite = tuple[str, str]  # a phase of the step, and a block or another part in it
STATES = ('master weights', 'gradients', 'optimizer')  # of trained weights; FSDP2 shards them
KINDS = ('weights', *STATES, 'activations', 'head', 'workspace')


@dataclass
class _Allocation:
    """A live storage, its number and its size in bytes as last recorded."""
    storage: weakref.ref
    number: int
    size: int


class MemoryTracker(TorchDispatchMode):
    """Records the storages of all tensors that are created while it is active.

    Args:
        copying_collectives: Whether a collective works on a copy of its larger side, as gloo's do.
        copying_convolutions: Whether a convolution works on copies of images and weights, as
            cuDNN's kernels for tensor cores do, which want the channels last.

    Attributes:
        kind: Kind of what the forward pass allocates now: 'activations' or 'head'.
        kinds: Kind of each storage, one of ``KINDS``, by the storage's number; may be corrected
            afterwards.
        events: (number of the storage, bytes allocated or, negative, freed), in order.
        sites: (number of events before it, allocation site), in order.
        flops: Floating-point operations by kernel.
        calls: Largest call of each kernel.
        moved_bytes: Bytes that all other operations read and write, and products with adapters.
    """

    def __init__(self, copying_collectives: bool = False, copying_convolutions: bool = False):
        super().__init__()
        self.copying_collectives = copying_collectives
        self.copying_convolutions = copying_convolutions
        self.kind = 'workspace'
        self.kinds: list[str] = []
        self.events: list[tuple[int, int]] = []
        self.sites: list[tuple[int, AllocationSite]] = []
        self.flops: Counter[Kernel] = Counter()
        self.calls: dict[Kernel, KernelCall] = {}
        self.moved_bytes = 0
        self._live: dict[int, _Allocation] = {}  # by the address of the storage
        self._empty: dict[int, _Allocation] = {}  # those among them that were created empty

    def tag(self, tensors: Iterable[Tensor], kind: str) -> None:
        """Sets the kind of the storages of tensors, which are recorded if they were not yet."""
        for tensor in tensors:
            self.kinds[self._record(tensor, kind).number] = kind

    def number(self, tensor: Tensor) -> int:
        """Returns the number of a tensor's storage."""
        return self._record(tensor, self.kind).number

    def enter_site(self, phase: str, part: str = '') -> None:
        """Begins an allocation site: 'forward', 'backward' or 'optimizer', and a part in it."""
        self._record_resizes()
        self.sites.append((len(self.events), (phase, part)))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.prim.device.default:
            return args[0].fake_device
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it comes again, as an operation on the shard
        if func is aten._local_scalar_dense.default:  # no values here; 1 keeps averages finite
            return 1.0 if args[0].is_floating_point() else 1
        if func is aten.index.Tensor:
            args = (args[0], _without_masks(args[1]), *args[2:])
        kwargs = kwargs or {}
        self._record_resizes()
        out = func(*args, **kwargs)
        kind = self._kind_of_output(func, args)
        for tensor in tree_leaves(out):
            if _has_memory(tensor):
                allocation = self._record(tensor, kind)
                if func is aten.empty.memory_format:
                    self._empty[tensor.untyped_storage()._cdata] = allocation
        self._tag_communication(func, args, kwargs)
        self._record_workspace(func, args, out)
        self._count(func, args, kwargs, out)
        return out

    def _record(self, tensor: Tensor, kind: str) -> _Allocation:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._live:
            return self._live[address]

        def record_free(_: weakref.ref) -> None:
            self.events.append((allocation.number, -allocation.size))
            self._live.pop(address, None)
            self._empty.pop(address, None)

        allocation = _Allocation(weakref.ref(storage, record_free), len(self.kinds),
                                 storage.nbytes())
        self.kinds.append(kind)
        self.events.append((allocation.number, allocation.size))
        self._live[address] = allocation
        return allocation

    def _record_resizes(self) -> None:
        """Records what FSDP2 freed and allocated again since the last operation.

        It resizes the storages that it gathers weights in, which were created empty, and no
        operation tells of that. Freed storages come first, as in FSDP2.
        """
        changes = []
        for allocation in self._empty.values():
            storage = allocation.storage()
            if storage is not None and storage.nbytes() != allocation.size:
                changes.append((storage.nbytes() - allocation.size, allocation.number))
                allocation.size = storage.nbytes()
        self.events += [(number, change) for change, number in sorted(changes)]

    def _kind_of_output(self, func, args: tuple) -> str:
        """Returns the kind of an operation's new storages, as far as it is known now."""
        if func is aten._to_copy.default and self.kinds[self.number(args[0])] in (
                'master weights', 'weights'):
            return 'weights'
        backward = torch._C._current_graph_task_id() != -1 and not torch.is_grad_enabled()
        return 'workspace' if backward else self.kind

    def _tag_communication(self, func, args: tuple, kwargs: dict) -> None:
        """Tags the buffers of FSDP2, which are created by plain operations, by what uses them."""
        name = str(func)
        if not name.startswith(('fsdp.', 'c10d.')):
            return
        tensors = [t for t in tree_leaves((args, kwargs)) if _has_memory(t)]
        gathers = 'gather' in name or 'split_with_sizes_copy' in name
        for tensor in tensors:
            number = self.number(tensor)
            if self.kinds[number] not in STATES:
                self.kinds[number] = 'weights' if gathers else 'workspace'
        if self.copying_collectives and name.startswith('c10d.') and tensors:
            self._record_temporary(max(tensor.nbytes for tensor in tensors))

    def _record_workspace(self, func, args: tuple, out: object) -> None:
        """Records the copies of a convolution: of outputs or their gradients, inputs and weights.

        The two parts of a backward pass, which run one after the other, need the same. Where inputs
        or weights are stored with the channels last, only what is not is copied.
        """
        if not self.copying_convolutions:
            return
        if func is aten.convolution.default:
            inputs, result = args[:2], out
        elif func is aten.convolution_backward.default:
            inputs, result = args[1:3], args[0]
        else:
            return
        copied = (result, *inputs)
        if any(map(is_channels_last, inputs)):
            # The outputs are stored like that too. Their gradients may not be.
            copied = tuple(tensor for tensor in copied if tensor is not out and not
                           tensor.is_contiguous(memory_format=torch.channels_last))
        self._record_temporary(sum(tensor.nbytes for tensor in copied))

    def _record_temporary(self, size: int) -> None:
        self.kinds.append('workspace')
        self.events += [(len(self.kinds) - 1, size), (len(self.kinds) - 1, -size)]

    def _count(self, func, args: tuple, kwargs: dict, out: object) -> None:
        formula = FLOP_FORMULAS.get(func._overloadpacket)
        if formula is not None:
            flops = formula(*args, **kwargs, out_val=out)
            kernel, call = describe_call(func, args, flops)
            self.flops[kernel] += flops
            if call is not None and (
                    kernel not in self.calls or flops > self.calls[kernel].flops):
                self.calls[kernel] = call
            is_thin = call is not None and call.is_thin
        if not func.is_view and (formula is None or is_thin):
            self.moved_bytes += sum(t.nbytes for t in tree_leaves((args, kwargs, out))
                                    if _has_memory(t))


def peaks(tracker: MemoryTracker, *, permanent: Collection[int] = (),
          offloaded: Collection[int] = ()) -> dict[AllocationSite, dict[str, int]]:
    """Replays the events of a step.

    Args:
        tracker: Tracker of a whole step.
        permanent: Numbers of storages that live throughout a run, though not in its first step.
        offloaded: Numbers of storages that are in the host's memory.

    Returns:
        Bytes by kind at the moment at which most memory is in use, for each allocation site. What
        was allocated before the first site is counted.
    """
    permanent, skipped = set(permanent) - set(offloaded), {*permanent, *offloaded}
    sizes: Counter[int] = Counter()
    for number, change in tracker.events:
        if number in permanent and change > 0:
            sizes[number] = max(sizes[number], change)
    now = dict.fromkeys(KINDS, 0)
    for number, size in sizes.items():
        now[tracker.kinds[number]] += size
    starts = dict(tracker.sites)
    highest: dict[AllocationSite, dict[str, int]] = {}
    site: AllocationSite | None = None

    def compare(site: AllocationSite) -> None:
        if site not in highest or sum(now.values()) > sum(highest[site].values()):
            highest[site] = dict(now)

    for i, (number, change) in enumerate([*tracker.events, (-1, 0)]):  # a site may begin at the end
        if i in starts:
            site = starts[i]
            compare(site)
        if number not in skipped:
            now[tracker.kinds[number]] += change
        if site is not None and change > 0:
            compare(site)
    return highest


def _has_memory(value: object) -> bool:
    """Whether a value is a tensor with memory of its own; a DTensor's is that of its shard."""
    return isinstance(value, Tensor) and not isinstance(value, DTensor)


def _without_masks(indices: list) -> list:
    """Selects all elements instead of those of a mask, whose number is not known here."""
    return [plain for index in indices for plain in (
        [torch.empty(index.numel(), dtype=torch.long, device=index.device)] * index.dim()
        if index is not None and index.dtype == torch.bool else [index])]
