"""A CUDA device that is not there: steps run on fake tensors, and say what they would do.

Fake tensors have a device, a shape and a dtype, and no memory. They refuse operations that mix
devices. Three more things make a whole training run on them, on a machine without a GPU:

- The autograd engine has no thread for a CUDA device here. ``_OnCuda`` tells C++ alone that all
  tensors are the CPU's, so that it stays in the calling thread; Python sees the fake device.
- What C++ would decide by the device is decided in Python: moves between devices, attention.
- ``simulate_cuda`` replaces what ``torch.cuda`` asks the driver for.

Everything that makes the host wait for the device is recorded, with the line that asks for it: a
number read from a tensor, a blocking copy to the host or the device, indices on the host, a shape
that depends on values, `synchronize`. So are the collectives, with their tensors. Whether a copy
that does not block comes from pinned memory is seen of tensors that ``pin_memory()`` made, and an
operation on a tensor that another stream is still copying fails.
"""
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers.commands import ROOT
from helpers.nccl_group import LIBRARIES, nccl_group
from torch import Tensor, nn
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import _engine_run_backward
from torch.distributed.tensor import DTensor
from torch.nn.parallel import comm
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    _get_current_dispatch_mode,
)
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
MADE_BY_CPP = (aten.empty.memory_format, aten.zeros.default, aten.new_empty_strided.default)
CPU, CUDA = torch.device('cpu'), torch.device('cuda', 0)
FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.arange, torch.eye, torch.rand,
             torch.randn, torch.randint, torch.linspace, torch.empty_strided}

# Operations that may take tensors of both devices; of the others, only those of one number.
COPIES = {aten.copy_.default, aten._to_copy.default, aten._foreach_copy_.default}
ASSIGNMENTS = {aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
# By the position of the size of their output; the fake forms of these convert outputs in C++.
RESIZES = {aten.upsample_bilinear2d.default: 1, aten.upsample_bilinear2d_backward.default: 2}
CONVOLUTIONS = {aten.convolution.default, aten.convolution_backward.default}
# Operations of batch norm that have no fake form, or one that writes the statistics as C++ does:
# (whether the first output is of the input's shape, number of outputs of one value per channel).
NO_LAUNCH = {'empty', 'empty_like', 'empty_strided', 'new_empty', 'new_empty_strided', 'detach',
             'alias', 'set_', 'resize_', '_reshape_alias', '_unsafe_view', 'device',
             '_local_scalar_dense', 'wait_tensor', 'lift_fresh', 'record_stream'}
BATCH_NORM = {
    aten.native_batch_norm.default: (True, 2), aten.batch_norm_stats.default: (False, 2),
    aten.batch_norm_gather_stats_with_counts.default: (False, 2),
    aten.batch_norm_elemt.default: (True, 0),
    aten.batch_norm_backward_reduce.default: (False, 4),
    aten.batch_norm_backward_elemt.default: (True, 0)}

# Whose fake forms index or copy on the device itself; functions of their first two arguments.
COMPOSED = {
    aten.grid_sampler_2d.default: lambda maps, points: maps.new_empty(
        *maps.shape[:2], *points.shape[1:3]),
    aten._softmax_backward_data.default: lambda _, output: torch.empty_like(output)}


class FakeCuda:
    """What happened on the simulated device.

    Attributes:
        host_waits: A line of code for each time that the host waited for the device.
        unpinned: A line of code for each copy that is to overlap, from memory that is not pinned.
        beside: The same of threads beside the main one, for which it does not wait.
        collectives: Names of the collectives between devices.
        host_groups: Names of the process groups between hosts.
        copies: Copies to the device that do not block: whether from pinned memory, and whether on
            the stream that computes.
        launches: Number of operators by name that reach the device.
    """

    def __init__(self):
        self.host_waits: list[str] = []
        self.beside: list[str] = []
        self.collectives: list[str] = []
        self.host_groups: set[str] = set()
        self.copies: list[tuple[bool, bool]] = []
        self.launches: Counter[str] = Counter()
        self.unpinned: list[str] = []
        self._pinned: dict[int, torch.UntypedStorage] = {}
        self.arriving: dict[int, _Stream] = {}  # storages that a stream is copying to the device
        self.in_factory, self.moving = 0, False

    def wait(self, reason: str) -> None:
        """Records that the host waits."""
        self.host_waits.append(f'{_asking_line()} ({reason})')

    def pin(self, tensor: Tensor) -> None:
        """Remembers that the memory of a tensor is pinned."""
        self._pinned[_storage(tensor)] = tensor.untyped_storage()

    def is_pinned(self, tensor: Tensor) -> bool:
        """Returns whether the memory of a tensor is pinned."""
        return _storage(tensor) in self._pinned

    def launch(self, func, args: tuple, kwargs: dict, out: object) -> None:
        """Counts an operator, if it is more than a view and has something to do on the device.

        Raises:
            RuntimeError: If it reads what another stream is still copying.
        """
        if _is_free(func):
            return
        tensors = [local(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if not any(map(_on_cuda, [*tensors, *tree_leaves(out)])):
            return
        self.launches[str(func)] += 1
        for tensor in tensors if self.arriving else ():
            stream = self.arriving.get(_storage(tensor))
            if stream is not None and stream is not _streams[-1]:
                raise RuntimeError(f'{func} reads too early what is being copied, at '
                                   f'{_asking_line()}')

    @contextmanager
    def factory(self) -> Iterator[None]:
        """Marks that Python makes a tensor, on the device that it says."""
        self.in_factory += 1
        try:
            yield
        finally:
            self.in_factory -= 1

    def collect(self, name: str, tensor: Tensor, on_host: bool = False) -> None:
        """Records a collective; nccl takes tensors of its device alone, gloo those of the host.

        Raises:
            RuntimeError: For a tensor on the other side.
        """
        if tensor.device == CPU and 'cpu:' in dist.get_backend_config():
            return  # the group has a part for tensors of the host
        expected = 'cpu' if on_host else 'cuda'
        if tensor.device.type != expected:
            raise RuntimeError(f'{name} in a group of {expected}: a tensor on {tensor.device}, at '
                               f'{_asking_line()}')
        if not on_host:
            self.collectives.append(name)

    def exchange(self, name: str, group: dist.ProcessGroup | None) -> None:
        """Records an exchange of Python objects; nccl takes them through the device."""
        if group is None and 'cpu:' in dist.get_backend_config():
            return
        if group is None or group.group_name not in self.host_groups:
            self.collectives.append(name)
            self.wait(name)


@contextmanager
def on_cuda(watcher: AbstractContextManager | None = None) -> Iterator[FakeCuda]:
    """Runs code on fake tensors; more than layers needs the effect of ``simulate_cuda``.

    Args:
        watcher: Dispatch mode that sees all operations as the device would get them.
    """
    seen = FakeCuda()
    _watching.append(seen)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), watcher or nullcontext(), _OnCuda(seen), (
                _Decisions(seen)):
            yield seen
    finally:
        _watching.remove(seen)


_watching: list[FakeCuda] = []


def _wait(reason: str) -> None:
    for seen in _watching:
        seen.wait(reason)


class _OnCuda(TorchDispatchMode):
    """Answers C++ and records host waits and collectives."""

    def __init__(self, seen: FakeCuda):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return CPU
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it comes again, as an operation on the shard
        if func is aten._local_scalar_dense.default:
            if _on_cuda(args[0]):
                self.seen.wait('a number is read')
            return 1.0 if args[0].is_floating_point() else 1
        if func is aten.nonzero.default:  # all are taken for nonzero
            if _on_cuda(args[0]):
                self.seen.wait('a shape depends on values')
            return args[0].new_zeros(args[0].numel(), args[0].ndim, dtype=torch.long)
        if func in MADE_BY_CPP and kwargs.get('device') == CPU and (
                not self.seen.in_factory):  # beside a tensor that C++ takes for one of the CPU
            kwargs = {**kwargs, 'device': CUDA, 'pin_memory': False}
        if func is aten.index.Tensor or func in ASSIGNMENTS:
            self._check_indices(func, args)
        elif func not in COPIES and func.namespace not in LIBRARIES:
            _check_devices(func, args, kwargs)
        if func is aten.index.Tensor:
            args = (args[0], [self._whole(index) for index in args[1]])
        if func is aten._to_copy.default and _on_cuda(args[0]) and not self.seen.moving:
            kwargs.pop('device', None)  # C++ takes it for the tensor's own
        if func.namespace in LIBRARIES and 'wait_tensor' not in str(func):
            self._record_collective(str(func), tree_leaves((args, kwargs)))
        if (outputs := BATCH_NORM.get(func)) and (func is not aten.native_batch_norm.default
                                                  or args[5]):
            return _batch_norm(outputs, args[0])
        if func in RESIZES and suggest_memory_format(args[0]) == torch.channels_last:
            size = args[RESIZES[func]][-2:]
            return _with_channels_last(args[0].new_empty(*args[0].shape[:2], *size))
        out = COMPOSED[func](*args[:2]) if func in COMPOSED else func(*args, **kwargs)
        if func in CONVOLUTIONS:
            out = _as_cudnn(out, args[:2] if func is aten.convolution.default else args[1:3])
        self._record_copy(func, args, kwargs, out)
        self.seen.launch(func, args, kwargs, out)
        return out

    def _check_indices(self, func, args: tuple) -> None:
        """Records that indices are copied to the device, or counted there."""
        if not _on_cuda(args[0]):
            return
        indices = [index for index in args[1] if index is not None]
        of_one_number = func in ASSIGNMENTS and args[2].numel() == 1 and not _on_cuda(args[2])
        if func in ASSIGNMENTS:
            _check_devices(func, (args[0], args[2]), {})
        if not all(map(_on_cuda, indices)):
            self.seen.wait('indices are copied to the device')
        elif any(index.dtype == torch.bool for index in indices) and not of_one_number:
            self.seen.wait('a shape depends on values')

    @staticmethod
    def _whole(index: Tensor | None) -> Tensor | None:
        """Returns the index of all elements in the place of a mask along one axis."""
        if index is None or index.dtype != torch.bool:
            return index
        assert index.ndim == 1, 'a mask along several axes'
        return torch.empty(len(index), dtype=torch.long, device=index.device)

    def _record_collective(self, name: str, arguments: list) -> None:
        groups = [dist.ProcessGroup.unbox(value).group_name for value in arguments
                  if isinstance(value, torch.ScriptObject) and 'ProcessGroup' in str(value._type())]
        on_host = any(group in self.seen.host_groups for group in groups)
        for tensor in arguments:
            if isinstance(tensor, Tensor):
                self.seen.collect(name, tensor, on_host)

    def _record_copy(self, func, args, kwargs, out) -> None:
        if func is aten._to_copy.default:
            source, target = args[0], out
            overlaps = kwargs.get('non_blocking')
        elif func is aten.copy_.default:
            target, source = args[:2]
            overlaps = args[2] if len(args) > 2 else kwargs.get('non_blocking')
        else:
            return
        if _on_cuda(source) and target.device == CPU:
            if not overlaps:
                self.seen.wait('a copy to the host')
            elif target is out:
                self.seen.pin(target)
        elif _on_cuda(target) and source.device == CPU and not overlaps:
            self.seen.wait('a blocking copy to the device')
        elif _on_cuda(target) and source.device == CPU and source.dim():
            on_compute, pinned = len(_streams) == 1, self.seen.is_pinned(source)
            self.seen.copies.append((pinned, on_compute))
            if not pinned:
                self.seen.unpinned.append(_asking_line())
            if not on_compute:
                self.seen.arriving[_storage(target)] = _streams[-1]


class _Decisions(TorchFunctionMode):
    """Decides in Python what C++ would decide by the device."""

    def __init__(self, seen: FakeCuda):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if _get_current_dispatch_mode() is None:  # tensors are real for a while
            return func(*args, **kwargs)
        if func in FACTORIES:
            with self.seen.factory():
                return func(*args, **kwargs)
        if func is Tensor.backward:  # it may recompute, and a mode is off while it is asked
            with self:
                return _engine_run_backward(
                    (args[0],), (torch.ones_like(args[0]),), False, False, (),
                    allow_unreachable=True, accumulate_grad=True)
        special: Callable | None = getattr(self, f'_{getattr(func, "__name__", "")}', None)
        if func == Tensor.is_cuda.__get__:
            return _on_cuda(args[0])
        if special is not None and not any(issubclass(kind, DTensor) for kind in types):
            return special(func, *args, **kwargs)
        return func(*args, **kwargs)

    def _move(self, tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None = None,
              non_blocking: bool = False,
              memory_format: torch.memory_format | None = None) -> Tensor:
        is_cuda = isinstance(device, int) or torch.device(device).type == 'cuda'
        device = CUDA if is_cuda else torch.device(device)
        dtype = dtype or tensor.dtype
        if (device, dtype) == (tensor.device, tensor.dtype) and memory_format in (
                None, torch.preserve_format, suggest_memory_format(tensor)):
            return tensor
        self.seen.moving = True
        try:
            return aten._to_copy.default(tensor, device=device, dtype=dtype,
                                         non_blocking=non_blocking, memory_format=memory_format)
        finally:
            self.seen.moving = False

    def _to(self, _func, tensor: Tensor, *args, **kwargs) -> Tensor:
        kwargs.pop('copy', None)
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype)
        memory_format = kwargs.get('memory_format')  # that of _parse_to has another default
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        return self._move(tensor, device or tensor.device, dtype, non_blocking, memory_format)

    def _get_device(self, _func, tensor: Tensor) -> int:
        return 0 if _on_cuda(tensor) else -1

    def _cpu(self, _func, tensor: Tensor) -> Tensor:
        return self._move(tensor, CPU)

    def _cuda(self, _func, tensor: Tensor, device: object = None,
              non_blocking: bool = False) -> Tensor:
        return self._move(tensor, CUDA, None, non_blocking)

    def _pin_memory(self, _func, tensor: Tensor, *_) -> Tensor:
        pinned = tensor.clone()
        self.seen.pin(pinned)
        return pinned

    def _is_pinned(self, _func, tensor: Tensor) -> bool:
        return self.seen.is_pinned(tensor)

    def _numpy(self, _func, tensor: Tensor):
        if _on_cuda(tensor):
            self.seen.wait('a copy to the host')
        with _disable_current_modes():
            return torch.ones(tensor.shape, dtype=tensor.dtype).numpy()

    def _tensor(self, func, data, dtype=None, device=None, **kwargs) -> Tensor:
        with _disable_current_modes():
            values = func(data, dtype=dtype)
        with self.seen.factory():  # fakes of real tensors would keep the values, and move them
            fake = torch.empty(values.shape, dtype=values.dtype, **kwargs)
        return fake if device is None else self._move(fake, device)

    def _new_tensor(self, _func, tensor: Tensor, data, dtype=None, device=None) -> Tensor:
        return self._tensor(torch.tensor, data, dtype or tensor.dtype, device or tensor.device)

    def _scaled_dot_product_attention(self, func, q: Tensor, k: Tensor, v: Tensor,
                                      mask: Tensor | None = None, **kwargs) -> Tensor:
        if not _on_cuda(q) or q.dtype == torch.float32 or mask is not None or kwargs:
            return func(q, k, v, mask, **kwargs)
        grad = torch.is_grad_enabled() and q.requires_grad
        return aten._scaled_dot_product_cudnn_attention(q, k, v, None, grad)[0]


def _check_devices(func, args: tuple, kwargs: dict) -> None:
    """Refuses tensors of both devices, some of which the fake forms of operations accept.

    Raises:
        RuntimeError: Naming the operation and the line.
    """
    found = {tensor.device.type for tensor in tree_leaves((args, kwargs))
             if isinstance(tensor, Tensor) and (tensor.dim() or _on_cuda(tensor))}
    if {'cpu', 'cuda'} <= found:
        raise RuntimeError(f'two different devices, cpu and cuda, in {func} at {_asking_line()}')


def _batch_norm(outputs: tuple[bool, int], x: Tensor) -> tuple | Tensor:
    whole, of_channels = outputs
    found = [torch.empty_like(x)] * whole + [
        x.new_empty(x.shape[1], dtype=torch.float) for _ in range(of_channels)]
    return tuple(found) if len(found) > 1 else found[0]


def _as_cudnn(out: tuple | Tensor, inputs: tuple) -> tuple | Tensor:
    """Returns the outputs of a convolution with the channels last if its inputs have them so.

    As cuDNN does; the fake form takes PyTorch's own kernels, since it finds no cuDNN.
    """
    if torch.channels_last not in map(suggest_memory_format, inputs):
        return out
    return tree_map_only(Tensor, _with_channels_last, out)


def _with_channels_last(out: Tensor) -> Tensor:
    """Returns a tensor of four axes in the same memory, with the channels last."""
    if out.ndim != 4:
        return out
    _, channels, height, width = out.shape
    return out.as_strided(out.shape, (channels * height * width, 1, width * channels, channels))


def local(tensor):
    """Returns a tensor, or this rank's part of a DTensor, which C++ takes for one of the CPU."""
    return getattr(tensor, '_local_tensor', tensor)


def _on_cuda(value: object) -> bool:
    value = local(value)
    return isinstance(value, Tensor) and value.device.type == 'cuda'


def _asking_line() -> str:
    """Returns file:function of the innermost frame of the project that is not this file's."""
    frame = sys._getframe(1)
    while frame is not None:  # traceback.extract_stack() would read the lines of all files
        path = _path_in_project(frame.f_code.co_filename)
        if path is not None:
            return f'{path}:{frame.f_code.co_name}'
        frame = frame.f_back
    return 'unknown'


@cache
def _path_in_project(filename: str) -> Path | None:
    """Returns the path of a file of the project; None for others, this one, and those of .venv."""
    path = Path(filename)
    if path == Path(__file__) or not path.is_relative_to(ROOT) or 'site-packages' in path.parts:
        return None
    return path.relative_to(ROOT)


class ThreadInTurn:
    """Takes the place of a thread beside the main one, to which the fake tensors would be unknown.

    What is to run in it runs at once, and its host waits are recorded apart.
    """

    def __init__(self, *_):
        pass

    def submit(self, function: Callable, *args) -> Future:
        done: Future = Future()
        waits = [seen.host_waits for seen in _watching]
        for seen in _watching:
            seen.host_waits = seen.beside
        try:
            done.set_result(function(*args))
        except BaseException as error:
            done.set_exception(error)
        finally:
            for seen, own in zip(_watching, waits):
                seen.host_waits = own
        return done

    def shutdown(self, **_) -> None:
        pass


def _storage(tensor: Tensor) -> int:
    """Returns what views of a tensor have in common."""
    return local(tensor).untyped_storage()._cdata


@cache
def _is_free(func) -> bool:
    """Returns whether an operator gives memory or a view, for which nothing is launched."""
    returned = [value.alias_info for value in func._schema.returns]
    view = bool(returned) and all(info is not None and not info.is_write for info in returned)
    return view or func._schema.name.split('::')[1] in NO_LAUNCH


class _Stream:
    """A stream, or an event of one, that is always done."""

    stream_id, device_index, device_type = 0, 0, 1  # which FSDP2 of PyTorch 2.15 reads

    def __init__(self, *_, **__):
        self.device, self.cuda_stream, self.stream = CUDA, 0, self

    def record(self, stream: '_Stream | None' = None) -> '_Stream':
        self.stream = stream or _streams[-1]
        return self

    def record_event(self, event: '_Stream | None' = None) -> '_Stream':
        return (event or _Stream()).record(self)

    def wait_stream(self, other: '_Stream') -> None:
        for seen in _watching if self is _streams[0] else ():
            seen.arriving = {storage: stream for storage, stream in seen.arriving.items()
                             if stream is not other.stream}

    wait_event = wait_stream

    def wait(self, stream: '_Stream | None' = None) -> None:
        (stream or _streams[-1]).wait_event(self)

    def __enter__(self) -> None:
        _streams.append(self)

    def __exit__(self, *_) -> None:
        _streams.pop()

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        _wait('synchronize')


_streams = [_Stream()]  # the stream that computes, and those that are current inside of it


def simulate_cuda(monkeypatch: pytest.MonkeyPatch, gpus: int = 8) -> None:
    """Replaces what torch asks the driver for, as on a machine with Hopper GPUs."""
    import torch._subclasses.fake_tensor as fakes
    bytes_free = 80 * 2**30
    for name, value in dict(
            is_available=lambda: True, is_initialized=lambda: True, device_count=lambda: gpus,
            current_device=lambda: 0, set_device=lambda _: None, init=lambda: None,
            get_device_capability=lambda *_: (9, 0), get_device_name=lambda *_: 'a fake GPU',
            Stream=_Stream, Event=_Stream, current_stream=lambda *_: _streams[-1],
            default_stream=lambda *_: _streams[0], stream=lambda stream: stream or nullcontext(),
            device=lambda *_: nullcontext(), synchronize=lambda *_: _wait('synchronize'),
            is_current_stream_capturing=lambda: False, manual_seed_all=lambda _: None,
            empty_cache=lambda: _wait('empty_cache'),
            memory_allocated=lambda *_, **__: 0, memory_reserved=lambda *_, **__: 0,
            max_memory_allocated=lambda *_, **__: 0,
            reset_peak_memory_stats=lambda *_: None,
            mem_get_info=lambda *_: (bytes_free, bytes_free)).items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(fakes.FakeTensor, 'tolist',
                        lambda tensor: tensor.cpu().numpy().tolist())
    monkeypatch.setattr(fakes, 'init_gpu_context', lambda _: None)
    monkeypatch.setattr(clip_grad, '_group_tensors_by_device_and_dtype', _group_tensors)
    monkeypatch.setattr(torch.accelerator, 'is_available', lambda: False)  # no stream of its own
    monkeypatch.setattr(comm, 'scatter', lambda tensor, *_: (tensor.cuda(non_blocking=True),))
    monkeypatch.setattr(nn.Module, '_apply', _apply)
    monkeypatch.setattr(Tensor, 'record_stream', lambda *_: None)
    # PyTorch 2.15 draws until all numbers are in range, which numbers without a value never are.
    monkeypatch.setattr(nn.init, '_no_grad_trunc_normal_', _draw)


def _draw(tensor: Tensor, *_, **__) -> Tensor:
    with torch.no_grad():
        return tensor.normal_()


def _group_tensors(tensors: list) -> dict:
    """Groups tensors by device, which C++ takes for the CPU."""
    groups = _foreach_utils._group_tensors_by_device_and_dtype(tensors)
    return {(CUDA if _on_cuda(found[0][0][0]) else device, dtype): found
            for (device, dtype), found in groups.items()}


@contextmanager
def simulate_ranks(monkeypatch: pytest.MonkeyPatch, seen: FakeCuda, ranks: int,
                   host: bool = False) -> Iterator[None]:
    """Joins :func:`.nccl_group.nccl_group` as rank 0, where there are several ranks.

    Args:
        monkeypatch: Fixture of the test.
        seen: What happens on the device.
        ranks: Number of ranks.
        host: Whether the group also takes tensors of the host, as those of a run do.
    """
    if ranks == 1:
        yield
        return
    from torch.nn.parallel import distributed as ddp
    new_group = dist.new_group

    def group_of(ranks: list[int] | None = None, backend: str | None = None,
                 **_) -> dist.ProcessGroup:
        with _disable_current_modes():
            group = new_group(ranks, backend='cpu:fake' if backend == 'gloo' else backend)
        if backend == 'gloo':
            seen.host_groups.add(group.group_name)
        return group

    def all_gather_object(objects: list, value: object, group: object = None) -> None:
        seen.exchange('all_gather_object', group)
        objects[:] = [value] * len(objects)

    def gather_object(value: object, objects: list, dst: int, group: object = None) -> None:
        seen.exchange('gather_object', group)
        objects[:] = [value] * len(objects)

    monkeypatch.setattr(dist, 'new_group', group_of)
    monkeypatch.setattr(dist, 'gather_object', gather_object)
    monkeypatch.setattr(dist, 'all_gather_object', all_gather_object)
    monkeypatch.setattr(dist, 'broadcast_object_list', lambda values, src=0, group=None:
                        seen.exchange('broadcast_object_list', group))
    monkeypatch.setattr(ddp, '_verify_param_shape_across_processes', lambda *_: None)
    monkeypatch.setattr(ddp, '_sync_module_states', lambda *_, **__: None)
    with nccl_group(ranks, host=host):
        yield


def _apply(module: nn.Module, change: Callable[[Tensor], Tensor],
           recurse: bool = True) -> nn.Module:
    """Replaces the tensors of a module, which torch would swap if they are fake, and cannot."""
    for child in module.children() if recurse else ():
        child._apply(change)
    for name, parameter in module._parameters.items():
        if parameter is not None and (new := change(parameter)) is not parameter:
            module._parameters[name] = nn.Parameter(new.detach(), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = change(buffer)
    return module
