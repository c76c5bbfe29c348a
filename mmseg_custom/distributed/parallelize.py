"""The one place that wraps a segmentor: activation checkpointing, compile, then none, DDP or FSDP2.

``engine=dict(type=...)`` in a config or ``--engine`` says which; see :class:`Engine`. What comes
out is driven by mmcv's runner and mmseg's tests like any other wrapped model.
"""
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace

import torch
import torch.distributed as dist
from mmcv.parallel import MMDataParallel, is_module_wrapper
from mmcv.parallel.registry import MODULE_WRAPPERS
from mmcv.parallel.scatter_gather import scatter_kwargs
from mmseg.utils import get_root_logger
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.nn.parallel import DistributedDataParallel

from ..errors import InputError, refuse_unknown
from ..layers.sync_batch_norm import sync_batch_norm_on_cpu
from .precision import compile_blocks, move_casts_to_fsdp, store_master_weights

ENGINES = ('auto', 'single', 'ddp', 'fsdp2')


@dataclass(frozen=True)
class Engine:
    """How a run is spread over its processes.

    Attributes:
        type: 'single' (one process), 'ddp' (each has all weights), 'fsdp2' (each has its share of
            weights, gradients and optimizer state) or 'auto': one process alone is 'single', many
            are 'ddp' where the backbone's blocks are frozen and 'fsdp2' where they are trained.
        checkpoint_every: Recompute the activations of every k-th block, in backbones that
            checkpoint at all (``with_cp=True``).
        compile: torch.compile each block.
        prefetch: FSDP2 gathers the weights of that many blocks ahead; 0 leaves it to FSDP2.
        hybrid: FSDP2 shards within a node and replicates over the nodes.
        cpu_offload: FSDP2 keeps weights, gradients and optimizer state in the CPU's memory.
        defer_reduce: With accumulation, FSDP2 reduces gradients once an iteration rather than
            once a batch: less traffic, but every process holds all gradients in float32 meanwhile.
    """
    type: str = 'auto'
    checkpoint_every: int = 1
    compile: bool = False
    prefetch: int = 1
    hybrid: bool = False
    cpu_offload: bool = False
    defer_reduce: bool = False

    @classmethod
    def of(cls, options: dict | None) -> 'Engine':
        """Reads ``engine=dict(...)`` of a config.

        Raises:
            InputError: For an unknown key or value.
        """
        options = dict(options or {})
        refuse_unknown('engine', options, [field.name for field in fields(cls)])
        engine = cls(**options)
        if engine.type not in ENGINES:
            raise InputError(f'engine.type={engine.type!r}: expected one of {", ".join(ENGINES)}')
        if engine.checkpoint_every < 1:
            raise InputError(f'engine.checkpoint_every={engine.checkpoint_every}: expected 1 or '
                             'more; model.backbone.with_cp=False turns checkpointing off')
        if engine.prefetch < 0:
            raise InputError(f'engine.prefetch={engine.prefetch}: expected 0 or more blocks')
        return engine


@MODULE_WRAPPERS.register_module()
class SegmentorDDP(DistributedDataParallel):
    """torch's DDP with the methods that mmcv's runner calls, on GPUs and on the CPU.

    mmcv 1.7's own wrapper goes around torch's forward, through attributes that torch 2 no longer
    has, and asserts CUDA. Here a step runs inside torch's forward, so that its hooks see it.
    """

    def __init__(self, module: nn.Module, device: str, **kwargs):
        self._scatter_to = _scatter_to(device)
        super().__init__(module, device_ids=self._scatter_to if device == 'cuda' else None,
                         **kwargs)

    def forward(self, *inputs, **kwargs):
        """Unpacks mmcv's DataContainers onto the device, then runs the module."""
        inputs, kwargs = scatter_kwargs(inputs, kwargs, self._scatter_to)
        if not self.training:  # nothing to reduce: ranks may differ in their number of windows
            return self.module(*inputs[0], **kwargs[0])
        return super().forward(*inputs[0], **kwargs[0])

    def train_step(self, *inputs, **kwargs):
        """The module's ``train_step``, inside DDP's forward."""
        return self._step('train_step', *inputs, **kwargs)

    def val_step(self, *inputs, **kwargs):
        """The module's ``val_step``, inside DDP's forward."""
        return self._step('val_step', *inputs, **kwargs)

    def _step(self, name: str, *inputs, **kwargs):
        module = self.module
        step = getattr(module, name)

        def forward(*args, **kws):
            del module.forward  # the step itself calls the module
            return step(*args, **kws)

        module.forward = forward
        try:
            return self(*inputs, **kwargs)
        finally:
            module.__dict__.pop('forward', None)


@MODULE_WRAPPERS.register_module()
class SegmentorFSDP(nn.Module):
    """A segmentor that :func:`fully_shard` was applied to, with what mmcv's runner calls.

    The steps of mmseg's segmentors call the segmentor itself, so that its hooks gather and reduce.
    """

    def __init__(self, module: nn.Module, device: str, defer_reduce: bool = False):
        super().__init__()
        self.module = module
        self.defer_reduce = defer_reduce
        self._scatter_to = _scatter_to(device)

    def forward(self, *inputs, **kwargs):
        """Unpacks mmcv's DataContainers onto the device, then runs the module."""
        return self._call(self.module, inputs, kwargs)

    def train_step(self, *inputs, **kwargs):
        """The module's ``train_step``."""
        return self._call(self.module.train_step, inputs, kwargs)

    def val_step(self, *inputs, **kwargs):
        """The module's ``val_step``."""
        return self._call(self.module.val_step, inputs, kwargs)

    def _call(self, function, inputs: tuple, kwargs: dict):
        inputs, kwargs = scatter_kwargs(inputs, kwargs, self._scatter_to)
        return function(*inputs[0], **kwargs[0])


def wrap_alone(model: nn.Module, device: str) -> nn.Module:
    """Moves a segmentor to its device and wraps it for one process, or for testing in many."""
    if device == 'cuda':
        return MMDataParallel(model.cuda(), device_ids=[torch.cuda.current_device()])
    wrapped = MMDataParallel(model)
    wrapped.device_ids = []  # torch's DataParallel takes every GPU it sees
    return wrapped


def parallelize(model: nn.Module, device: str, engine: Engine | None = None,
                find_unused_parameters: bool = False, kind: str | None = None,
                masters: torch.dtype = torch.float32) -> nn.Module:
    """Moves a segmentor to its device and wraps it for training.

    Args:
        model: A segmentor with its final dtypes (see :mod:`.precision`; for FSDP2, trained weights
            may be in another dtype, and are converted as they are sharded). It may be on the meta
            device for FSDP2: its shards are then left to be filled. The optimizer is built
            afterwards: FSDP2 puts other parameters in the place of the model's.
        device: 'cuda' or 'cpu'.
        engine: Default: 'auto'.
        find_unused_parameters: For DDP; on by itself where trained blocks are never read.
        kind: From :func:`choose_engine`, where that was called before.
        masters: What FSDP2 stores the backbone's trained weights in.

    Raises:
        InputError: If the engine does not go with the number of processes.
    """
    engine = engine or Engine()
    kind = kind or choose_engine(engine, model)
    backbone = getattr(model, 'backbone', None)
    # 1. Activation checkpointing: the backbone recomputes every k-th block.
    if hasattr(backbone, 'set_checkpointing'):
        backbone.set_checkpointing(engine.checkpoint_every)
    # FSDP2 casts when it gathers: the casts must be out of the way before anything is compiled.
    casts = move_casts_to_fsdp(backbone) if kind == 'fsdp2' else None
    # 2. Compile, block by block: one graph serves them all.
    if engine.compile:
        compile_blocks(read_blocks(model))
    # 3. None, DDP or FSDP2.
    if kind == 'single':
        return wrap_alone(model, device)
    if device == 'cpu':
        sync_batch_norm_on_cpu(model)
    if kind == 'ddp':
        return SegmentorDDP(
            model.cuda() if device == 'cuda' else model, device, broadcast_buffers=False,
            gradient_as_bucket_view=True,  # else DDP keeps a second copy of all gradients
            find_unused_parameters=find_unused_parameters or _has_unread_blocks(model))
    return shard(model, device, engine, *casts, masters)


def choose_engine(engine: Engine, model: nn.Module) -> str:
    """'single', 'ddp' or 'fsdp2', logged with the reason.

    Raises:
        InputError: If what was asked for does not go with the number of processes.
    """
    grouped = dist.is_available() and dist.is_initialized()
    ranks = dist.get_world_size() if grouped else 1
    if engine.type == 'single' and ranks > 1:
        raise InputError(f"engine 'single' in {ranks} processes: start one, or use auto, ddp or "
                         'fsdp2')
    if engine.type in ('ddp', 'fsdp2') and not grouped:
        raise InputError(f'engine {engine.type!r} needs a process group: start with '
                         'dist_train.sh CONFIG NUMBER_OF_PROCESSES (1 will do), or use single')
    kind, reason = engine.type, 'asked for'
    if kind == 'auto' and not grouped:
        kind, reason = 'single', 'one process'
    elif kind == 'auto':
        trained = any(p.requires_grad for block in _blocks(model) for p in block.parameters())
        kind, reason = (('fsdp2', 'the backbone is trained') if trained
                        else ('ddp', 'the backbone is frozen'))
    get_root_logger().info('engine: %s (%s), %d process(es)', kind, reason, ranks)
    return kind


def shard(model: nn.Module, device: str, engine: Engine,
          param_dtype: torch.dtype | None, cast_inputs: bool,
          masters: torch.dtype = torch.float32, mesh: DeviceMesh | None = None) -> SegmentorFSDP:
    """Applies FSDP2: each block, each head, then what is left (the root).

    Trained weights are float32 in their shards (``masters``, in the backbone). The backbone is
    gathered in ``param_dtype``, heads in float32, which batch norm needs; gradients are reduced in
    float32. A part becomes float32 just before it is sharded, so that no process ever holds all
    weights in float32. Without a ``mesh`` it is built of all processes.
    """
    mesh = mesh or build_mesh(device, engine.hybrid)
    common = dict(mesh=mesh, offload_policy=CPUOffloadPolicy(pin_memory=device == 'cuda')
                  if engine.cpu_offload else OffloadPolicy())
    casting = MixedPrecisionPolicy(param_dtype=param_dtype, reduce_dtype=torch.float32,
                                   cast_forward_inputs=cast_inputs)
    plain = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    blocks = list(_blocks(model))
    for block in blocks:
        store_master_weights(block, masters)
        fully_shard(block, mp_policy=casting, **common)
    for head in heads(model):
        store_master_weights(head)
        fully_shard(head, mp_policy=plain, **common)
        register_fsdp_forward_method(head, 'forward_test')  # mmseg's calls forward, not the head
    store_master_weights(model.backbone, masters)
    # Images stay float32: windows are merged in their dtype. The patch embedding casts them.
    fully_shard(model, mp_policy=replace(casting, cast_forward_inputs=False), **common)
    _leave_meta(model, device, engine.cpu_offload)
    read = read_blocks(model)
    for i, block in enumerate(read if engine.prefetch else ()):
        block.set_modules_to_forward_prefetch(read[i + 1:i + 1 + engine.prefetch])
        block.set_modules_to_backward_prefetch(read[max(i - engine.prefetch, 0):i][::-1])
    return SegmentorFSDP(model, device, engine.defer_reduce)


def _leave_meta(model: nn.Module, device: str, cpu_offload: bool) -> None:
    """Gives shards on the meta device memory, for a checkpoint to fill."""
    if any(p.is_meta for p in model.parameters()):
        model.to_empty(device='cpu' if cpu_offload else device)
        for buffer in model.buffers() if cpu_offload else ():
            buffer.data = buffer.data.to(device)


def build_mesh(device: str, hybrid: bool) -> DeviceMesh:
    """The processes in a row; with ``hybrid``, a row for each node.

    Raises:
        InputError: If the nodes have different numbers of processes.
    """
    ranks = dist.get_world_size()
    if not hybrid:
        return init_device_mesh(device, (ranks,), mesh_dim_names=('shard',))
    local_ranks = [None] * ranks
    dist.all_gather_object(local_ranks, int(os.environ.get('LOCAL_RANK', 0)))
    per_node = max(local_ranks) + 1
    if local_ranks != [rank % per_node for rank in range(ranks)]:
        raise InputError(f'engine.hybrid: the nodes have different numbers of processes '
                         f'(local ranks {local_ranks}): start the same number on each')
    return init_device_mesh(device, (ranks // per_node, per_node),
                            mesh_dim_names=('replicate', 'shard'))


def heads(model: nn.Module) -> Iterator[nn.Module]:
    """The parts of a segmentor beside its backbone, those in lists one by one."""
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList):
            yield from child
        elif name != 'backbone':
            yield child


def read_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of the backbone up to the last whose output is read."""
    blocks = list(_blocks(model))
    out_indices = getattr(getattr(model, 'backbone', None), 'out_indices', None)
    return blocks[:max(out_indices) + 1] if out_indices else blocks


def unwrap(model: nn.Module) -> nn.Module:
    """The segmentor inside a wrapper."""
    return model.module if is_module_wrapper(model) else model


def is_sharded(model: nn.Module) -> bool:
    """Whether each process holds only a share of a wrapped model's weights."""
    return isinstance(model, SegmentorFSDP)


@contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Keeps a sharded model gathered on every rank, so that none waits for another in forward.

    For evaluation, where ranks have different images and numbers of windows. A model that is not
    sharded is left alone.
    """
    groups = [m for m in model.modules() if isinstance(m, FSDPModule)] if is_sharded(model) else []
    for group in groups:
        group.unshard()
        group.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for group in groups:
            group.reshard()
            group.set_reshard_after_forward(group is not model.module, recurse=False)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Lets processes test a sharded model on different images and numbers of windows.

    In lockstep, layer by layer, where the segmentor can (``lockstep``), and gathered elsewhere.
    """
    if not (is_sharded(model) and hasattr(model.module, 'lockstep')):
        with unsharded(model):
            yield
        return
    model.module.lockstep = True
    try:
        yield
    finally:
        model.module.lockstep = False


def no_sync(model: nn.Module) -> AbstractContextManager:
    """A context for a batch whose gradients are added up, and not reduced over the ranks yet."""
    if isinstance(model, DistributedDataParallel):
        return model.no_sync()
    if is_sharded(model) and model.defer_reduce:
        return _without_reduction(model)
    return nullcontext()


@contextmanager
def _without_reduction(model: SegmentorFSDP) -> Iterator[None]:
    # A block that is never run has nothing to reduce, and torch 2.11 fails over it.
    unread = _unread_blocks(model.module)
    groups = [m for m in model.modules() if isinstance(m, FSDPModule) and m not in unread]
    for group in groups:
        group.set_requires_gradient_sync(False, recurse=False)
    try:
        yield
    finally:
        for group in groups:
            group.set_requires_gradient_sync(True, recurse=False)


def _scatter_to(device: str) -> list[int]:
    """Where mmcv's scatter is to put tensors; it knows the CPU as -1."""
    return [torch.cuda.current_device() if device == 'cuda' else -1]


def _blocks(model: nn.Module) -> nn.ModuleList | tuple:
    return getattr(getattr(model, 'backbone', None), 'blocks', ())


def _unread_blocks(model: nn.Module) -> list[nn.Module]:
    return list(_blocks(model))[len(read_blocks(model)):]


def _has_unread_blocks(model: nn.Module) -> bool:
    return any(p.requires_grad for block in _unread_blocks(model) for p in block.parameters())
