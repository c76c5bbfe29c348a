"""The one place that wraps a segmentor for training, as ``engine=dict(...)`` of a config says."""
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import torch
import torch.distributed as dist
from mmcv.parallel import is_module_wrapper
from mmseg.utils import get_root_logger
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.nn.parallel import DistributedDataParallel

from ..checkpoint.shard_reader import require_sharding
from ..errors import InputError
from ..layers.sync_batch_norm import adapt_sync_batch_norm
from ..models.backbone_options import traits_of
from .acceleration import accelerate
from .mesh import build_mesh
from .options import AUTO, AUTOMATIC, REDUCE_DTYPES, Engine
from .precision import heads, move_casts_to_fsdp, store_master_weights
from .wrappers import SegmentorDDP, SegmentorFSDP, wrap_alone


def parallelize(model: nn.Module, device: str, engine: Engine = AUTO,
                find_unused_parameters: bool = False, kind: str | None = None,
                master_dtype: torch.dtype = torch.float32,
                mesh: DeviceMesh | None = None) -> nn.Module:
    """Moves a segmentor to its device and wraps it for training.

    The optimizer is built afterwards: FSDP2 replaces the model's parameters.

    Args:
        model: Segmentor with its final dtypes (see :mod:`.precision`). For FSDP2 its trained
            weights may have another dtype, and are converted as they are sharded; it may also be
            on the meta device, and its shards are then left to be filled.
        device: 'cuda' or 'cpu'.
        engine: Options.
        find_unused_parameters: Option of DDP; on by itself where trained blocks are never read.
        kind: Result of :func:`choose_engine`, where that was called before.
        master_dtype: Dtype that FSDP2 stores the backbone's trained weights in.
        mesh: Processes of FSDP2; default: :func:`build_mesh`.

    Raises:
        InputError: If the engine does not go with the number of processes.
    """
    kind = kind or choose_engine(engine, model)
    # 1. Activation checkpointing of every k-th block, or of the first blocks.
    set_checkpointing(model, engine)
    # 2. Compilation block by block, where one graph serves all of them, and CUDA graphs.
    accelerate(model, read_blocks(model), engine, device, sharded=kind == 'fsdp2')
    # 3. One process, DDP or FSDP2.
    if kind == 'single':
        return wrap_alone(model, device)
    adapt_sync_batch_norm(model, device)
    if kind == 'ddp':
        return SegmentorDDP(
            model.cuda() if device == 'cuda' else model, device, broadcast_buffers=False,
            gradient_as_bucket_view=True,  # else DDP keeps a second copy of all gradients
            find_unused_parameters=find_unused_parameters or _has_unread_blocks(model))
    return shard(model, device, engine, *move_casts_to_fsdp(model.backbone), master_dtype, mesh)


def set_checkpointing(model: nn.Module, engine: Engine) -> None:
    """Tells the backbone which blocks recompute their activations."""
    if hasattr(model.backbone, 'set_checkpointing'):
        # A plugin's backbone may know no other argument than the first.
        first = () if engine.checkpoint_blocks is None else (engine.checkpoint_blocks,)
        model.backbone.set_checkpointing(engine.every_kth, *first)


def check_engine(engine: Engine) -> None:
    """Checks that an engine goes with the number of processes.

    Raises:
        InputError: If it does not.
    """
    grouped = _is_grouped()
    ranks = dist.get_world_size() if grouped else 1
    if engine.type == 'single' and ranks > 1:
        raise InputError(f"engine 'single' in {ranks} processes: start one, or use auto, ddp or "
                         'fsdp2')
    if engine.type in ('ddp', 'fsdp2') and not grouped:
        raise InputError(f'engine {engine.type!r} needs a process group: start with '
                         'dist_train.sh CONFIG NUMBER_OF_PROCESSES (1 will do), or use single')


def choose_engine(engine: Engine, model: nn.Module) -> str:
    """Returns 'single', 'ddp' or 'fsdp2', and logs it with the reason.

    Raises:
        InputError: If the engine does not go with the number of processes or with PyTorch.
    """
    check_engine(engine)
    kind, reason = engine_of(engine, model)
    if kind == 'fsdp2':
        require_sharding("engine 'fsdp2'")
        if not traits_of(model.backbone).is_shardable:
            raise InputError(f"engine 'fsdp2' with a {type(model.backbone).__name__}, which is "
                             'frozen and not sharded: use auto, single or ddp')
        frozen_dtype = getattr(model.backbone, 'frozen_dtype', None)
        if frozen_dtype is not None:  # it gathers all weights in one dtype
            raise InputError(f"engine 'fsdp2' with model.backbone.frozen_dtype={frozen_dtype!r}: "
                             'weights of 8 bits are not sharded; use auto, single or ddp, or leave '
                             'frozen_dtype out')
    ranks = dist.get_world_size() if _is_grouped() else 1
    get_root_logger().info('engine: %s (%s), %d process(es)', kind, reason, ranks)
    return kind


def engine_of(engine: Engine, model: nn.Module) -> tuple[str, str]:
    """Returns the type of an engine, 'auto' resolved, and the reason for it."""
    if engine.type != 'auto':
        return engine.type, 'asked for'
    return automatic_type(model) if _is_grouped() else ('single', 'one process')


def automatic_type(model: nn.Module) -> tuple[str, str]:
    """Returns the type of engine that 'auto' is in several processes, and the reason for it."""
    counts = [0, 0]  # of frozen and trained weights
    for block in _blocks(model):
        for parameter in block.parameters():
            counts[parameter.requires_grad] += parameter.numel()
    frozen, trained = counts
    if trained > frozen:
        if getattr(model.backbone, 'frozen_dtype', None) is not None:
            return 'ddp', 'weights of 8 bits are not sharded'
        return 'fsdp2', 'the backbone is trained'
    return 'ddp', 'most of the backbone is frozen' if trained else 'the backbone is frozen'


def _is_grouped() -> bool:
    return dist.is_available() and dist.is_initialized()


def shard(model: nn.Module, device: str, engine: Engine, param_dtype: torch.dtype | None,
          cast_inputs: bool, master_dtype: torch.dtype = torch.float32,
          mesh: DeviceMesh | None = None) -> SegmentorFSDP:
    """Applies FSDP2 to each block, then to each head, then to the rest (the root).

    The backbone's trained weights get ``master_dtype`` just before their block is sharded, so that
    no process ever holds all of them in float32. Heads are gathered in float32, which batch norm
    needs, and their gradients are reduced in it; those of the backbone in ``engine.reduce_dtype``.

    Args:
        model: Segmentor; see :func:`parallelize`.
        device: 'cuda' or 'cpu'.
        engine: Options.
        param_dtype: Dtype that the backbone's weights are gathered in; None for their own.
        cast_inputs: Whether FSDP2 casts the inputs of blocks to ``param_dtype`` too.
        master_dtype: Dtype of the shards of the backbone's trained weights.
        mesh: Processes; default: :func:`build_mesh`.
    """
    if mesh is None:
        mesh = build_mesh(device, engine.hybrid is True)
    reshard = engine.reshard_after_forward in (True, AUTOMATIC)
    fsdp = partial(fully_shard, mesh=mesh, reshard_after_forward=reshard,
                   offload_policy=CPUOffloadPolicy(pin_memory=device == 'cuda')
                   if engine.cpu_offload else OffloadPolicy())
    casting = MixedPrecisionPolicy(param_dtype=param_dtype, cast_forward_inputs=cast_inputs,
                                   reduce_dtype=REDUCE_DTYPES[engine.reduce_dtype])
    for block in _blocks(model):
        store_master_weights(block, master_dtype)
        fsdp(block, mp_policy=casting)
    for head in heads(model):
        store_master_weights(head)
        fsdp(head, mp_policy=MixedPrecisionPolicy(reduce_dtype=torch.float32))
        register_fsdp_forward_method(head, 'forward_test')  # mmseg's calls forward, not the head
    store_master_weights(model.backbone, master_dtype)
    # Images stay float32: windows are merged in their dtype. The patch embedding casts them.
    # The backward pass begins where the root's forward ends: its weights stay gathered.
    fsdp(model, mp_policy=replace(casting, cast_forward_inputs=False), reshard_after_forward=False)
    _leave_meta(model, device, engine.cpu_offload)
    if f'{device}:gloo' in dist.get_backend_config() and torch.__version__ < '2.9':
        _divide_sums(model)
    if engine.prefetch:
        _prefetch(read_blocks(model), engine.prefetch)
    for block in _blocks(model)[:getattr(model.backbone, 'first_under_autograd', 0)]:
        block.set_unshard_in_backward(False)  # which ends before them, and would gather one ahead
    return SegmentorFSDP(model, device, reshards=reshard,
                         reduces_late=mesh.ndim > 1 and engine.reduce_dtype == 'fp32',
                         finalizes_late=not engine.cpu_offload)


def _leave_meta(model: nn.Module, device: str, cpu_offload: bool) -> None:
    """Allocates memory for shards on the meta device, which a checkpoint fills later."""
    if any(p.is_meta for p in model.parameters()):
        model.to_empty(device='cpu' if cpu_offload else device)
        for buffer in model.buffers() if cpu_offload else ():
            buffer.data = buffer.data.to(device)


def _divide_sums(model: nn.Module) -> None:
    """Lets gradients be added up and then divided, in the place of a mean that gloo reduces.

    Before PyTorch 2.9, gloo's reduce-scatter takes a mean for a sum, without a word.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)


def _prefetch(blocks: list[FSDPModule], ahead: int) -> None:
    """Lets each block gather the weights of the next ones, forwards and backwards."""
    for i, block in enumerate(blocks):
        block.set_modules_to_forward_prefetch(blocks[i + 1:i + 1 + ahead])
        block.set_modules_to_backward_prefetch(blocks[max(i - ahead, 0):i][::-1])


def read_blocks(model: nn.Module) -> list[nn.Module]:
    """Returns the backbone's blocks up to the last one whose output is read."""
    blocks = list(_blocks(model))
    out_indices = getattr(model.backbone, 'out_indices', None)
    return blocks[:max(out_indices) + 1] if out_indices else blocks


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the segmentor inside a wrapper."""
    return model.module if is_module_wrapper(model) else model


def is_sharded(model: nn.Module) -> bool:
    """Returns whether each process holds only a shard of a wrapped model's weights."""
    return isinstance(model, SegmentorFSDP)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Lets ranks test a wrapped model on different images with different numbers of windows.

    A sharded segmentor that cannot test in lockstep (mmseg's own) is gathered on every rank, so
    that none waits for another. The others need nothing.
    """
    groups = [m for m in model.modules() if isinstance(m, FSDPModule)] if is_sharded(model) else []
    gathered = groups if not getattr(unwrap(model), 'tests_in_lockstep', False) else []
    for group in gathered:
        group.unshard()
        group.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for group in groups:  # no backward pass frees what the last forward pass has gathered
            group.reshard()
        for group in gathered:
            group.set_reshard_after_forward(model.reshards and group is not model.module,
                                            recurse=False)


def no_sync(model: nn.Module) -> AbstractContextManager:
    """Returns a context for a batch that is not the last one of an optimizer step.

    DDP adds up its gradients and does not reduce them yet. FSDP2 reduces every batch into shards:
    unreduced, the gradients of all weights would be on every rank. Where it replicates the shards
    over hosts, the sum over these waits for the last batch.
    """
    waits = isinstance(model, (DistributedDataParallel, SegmentorFSDP))
    return model.no_sync() if waits else nullcontext()


def _blocks(model: nn.Module) -> nn.ModuleList | tuple:
    return getattr(model.backbone, 'blocks', ())


def _has_unread_blocks(model: nn.Module) -> bool:
    unread = list(_blocks(model))[len(read_blocks(model)):]
    return any(p.requires_grad for block in unread for p in block.parameters())
