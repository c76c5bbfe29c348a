"""A training step on fake tensors, as one process of a run takes it, under the memory tracker."""
import copy
from collections import Counter
from contextlib import nullcontext

import torch
from mmcv import Config
from mmcv.cnn.utils import revert_sync_batchnorm
from mmseg.core import build_optimizer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from ..checkpoint.provenance import drop_blocks
from ..compat.feature_batches import batch_for
from ..distributed.memory import state_bytes, storage_of
from ..distributed.options import Engine
from ..distributed.parallelize import set_checkpointing, shard
from ..distributed.precision import (
    apply_precision,
    heads,
    move_casts_to_fsdp,
    training_dtype,
)
from ..engine.build import build_network, compute_dtype, head_dtype, master_dtype
from ..layers.sync_batch_norm import CPUSyncBatchNorm, replace_sync_batch_norm
from ..losses.mask_matching import assumed_masks
from ..models.backbone_options import traits_of
from ..optim.fused import with_fused
from ..optim.low_memory import NAME as LOW_MEMORY
from .depth import stretches_of
from .memory_tracker import STATES, MemoryTracker, peaks
from .run_shape import RunShape
from .simulation import (
    SimulatedSyncBatchNorm,
    simulate_device,
    simulate_kernels,
    simulate_processes,
)
from .sites import REST, block_sites, track_sites
from .step_trace import StepTrace

MASKS = 16  # of an image, whose labels are not known; those of ADE20K have 10 classes on average


def trace_step(cfg: Config, shape: RunShape, engine: Engine, checkpointing: bool,
               edge: int) -> StepTrace:
    """Runs one training step on fake tensors.

    Args:
        cfg: Config of the run; its pretrained file is not read.
        shape: Sizes of the run.
        engine: Engine, 'auto' resolved.
        checkpointing: Whether the backbone's activations are recomputed.
        edge: Blocks at either end of a stretch that are allocation sites of their own.
    """
    cfg = copy.deepcopy(cfg)  # Config.copy shares what is inside
    on_gpu = shape.device == 'cuda'
    tracker = MemoryTracker(copying_collectives=not on_gpu, copying_convolutions=on_gpu)
    stretches = (stretches_of(cfg, engine, checkpointing)
                 if traits_of(cfg.model.backbone).is_tunable else [])
    sites = block_sites([each.length for each in stretches], edge)
    processes = nullcontext() if engine.type == 'single' else simulate_processes(
        shape.ranks, shape.per_node if engine.hybrid is True else None)
    with processes as mesh, simulate_device(shape.device):
        model = _build(cfg, shape, checkpointing, engine)
        with FakeTensorMode(allow_non_fake_inputs=True):
            model.to_empty(device='cpu')
            with tracker:
                _shard(model, cfg, engine, tracker, mesh)
                states = _run(model, cfg, shape, engine, tracker, sites)
                counts = _count_bytes(model, cfg, states)
                frozen = {tracker.number(_local(p)) for p in model.parameters()
                          if not p.requires_grad}
    return _summarize(tracker, counts, frozen, shape, engine)


def _build(cfg: Config, shape: RunShape, checkpointing: bool, engine: Engine) -> nn.Module:
    """Builds the segmentor on the meta device, with the dtypes that it trains in."""
    if traits_of(cfg.model.backbone).is_internvit:
        cfg.model.backbone.with_cp = checkpointing
    model = build_network(cfg, on_meta=True)
    if not shape.has_blocks:
        drop_blocks(model.backbone)
    simulate_kernels(model, shape.device)
    apply_precision(model, training_dtype(compute_dtype(cfg, model), model.backbone), shape.device,
                    master_dtype=master_dtype(cfg), head_dtype=head_dtype(cfg, model))
    set_checkpointing(model, engine)
    if shape.ranks == 1:
        return revert_sync_batchnorm(model)
    return replace_sync_batch_norm(
        model, CPUSyncBatchNorm if shape.device == 'cpu' else SimulatedSyncBatchNorm)


def _shard(model: nn.Module, cfg: Config, engine: Engine, tracker: MemoryTracker,
           mesh: DeviceMesh | None) -> None:
    """Applies FSDP2 where that is the engine, and tags all weights."""
    tracker.tag(model.buffers(), 'weights')
    if engine.type == 'fsdp2':
        shard(model, 'cpu', engine, *move_casts_to_fsdp(model.backbone), master_dtype(cfg), mesh)
    for parameter in model.parameters():
        tracker.tag((_local(parameter),),
                    'master weights' if parameter.requires_grad else 'weights')
    model.train()


def _run(model: nn.Module, cfg: Config, shape: RunShape, engine: Engine, tracker: MemoryTracker,
         sites: list[str]) -> list[Tensor]:
    """Runs forward pass, backward pass and optimizer; returns the optimizer's state."""
    # On a GPU the next batch is on its way (engine/copied_ahead.py).
    batches = [_batch(model, shape, tracker) for _ in range(1 + (shape.device == 'cuda'))]
    if _keeps_gradients(engine, shape):
        _copy_gradients(model)
    optimizer = None if cfg.optimizer.type == LOW_MEMORY else build_optimizer(
        model, with_fused(cfg.optimizer, engine.is_on('fused_optimizer'),
                          engine.fused_optimizer is True, shape.device))
    with track_sites(model, tracker, sites), assumed_masks(_masks_of(model)):
        loss = model.train_step(batches[0], None)['loss']
    tracker.enter_site('backward', REST)
    loss.backward()
    tracker.kind = 'workspace'
    tracker.tag((_local(p.grad) for p in model.parameters() if p.grad is not None), 'gradients')
    tracker.enter_site('optimizer')
    if optimizer is None:  # that one's tensor types cannot be fake
        moments = state_bytes(model, engine.type, shape.ranks, engine,
                              storage=storage_of(cfg.optimizer)).optimizer
        states = [torch.empty(moments, dtype=torch.uint8)]
    else:
        states = _step(optimizer, shape)
    tracker.tag(states, 'optimizer')
    return states


def _masks_of(model: nn.Module) -> int:
    """Returns how many masks an image has, of which each needs a query of the heads."""
    return min(MASKS, *(len(getattr(head, 'queries', range(MASKS))) for head in heads(model)))


def _batch(model: nn.Module, shape: RunShape, tracker: MemoryTracker) -> dict:
    """Returns a batch of images, or of the feature maps that a cache holds for them."""
    labels = torch.empty(shape.images, 1, *shape.crop, dtype=torch.long)
    inputs = [torch.empty(shape.images, 3, *shape.crop)] if shape.cached is None else [
        torch.empty(shape.images, *each, dtype=shape.cached)
        for each in model.backbone.frozen_feature_shapes(*shape.crop)]
    tracker.tag((labels, *inputs), 'activations')
    batch = dict(gt_semantic_seg=labels, img_metas=[{}] * shape.images)
    return ({**batch, 'img': inputs[0]} if shape.cached is None
            else batch_for(model, {**batch, 'feats': inputs}))


def _keeps_gradients(engine: Engine, shape: RunShape) -> bool:
    """Returns whether all gradients stay allocated from step to step.

    They do in DDP's buckets, and where those of several batches are added up.
    """
    return engine.type == 'ddp' or shape.accumulation > 1


def _copy_gradients(model: nn.Module) -> None:
    """Lets gradients be computed beside the memory that keeps them."""
    def copy(parameter: Tensor) -> None:
        if parameter.grad is not None:
            parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)

    for parameter in model.parameters():
        if parameter.requires_grad and not isinstance(parameter, DTensor):
            parameter.register_post_accumulate_grad_hook(copy)


def _step(optimizer: torch.optim.Optimizer, shape: RunShape) -> list[Tensor]:
    """Takes a step, and returns the tensors of the optimizer's state.

    Parameters are replaced by their shards: DTensors would run each operation once more, on whole
    tensors, to learn its shapes. The groups themselves are formed by mmcv, by the model's names.
    """
    for group in optimizer.param_groups:
        group['params'] = [_local_parameter(p) for p in group['params']]
        # On GPUs torch's optimizers update all tensors of a group at once.
        if shape.device == 'cuda' and not group.get('fused') and group.get('foreach', 0) is None:
            group['foreach'] = True
    optimizer.step()
    return [value for values in optimizer.state.values()
            for value in values.values() if isinstance(value, Tensor)]


def _count_bytes(model: nn.Module, cfg: Config, states: list[Tensor]) -> Counter:
    """Counts bytes by kind, of the largest shard, and of the network before it was sharded."""
    counts = Counter(optimizer=sum(state.nbytes for state in states),
                     weights=sum(buffer.nbytes for buffer in model.buffers()))
    dtype = compute_dtype(cfg, model) or torch.float32  # of the backbone as it is built
    for name, parameter in model.named_parameters():
        size = _local(parameter).nbytes
        counts['built'] += parameter.numel() * (
            dtype.itemsize if name.startswith('backbone.') and parameter.is_floating_point()
            else parameter.itemsize)
        for kind in ('master weights',) if parameter.requires_grad else ('frozen', 'weights'):
            counts[kind] += size
        if parameter.grad is not None:
            counts['gradients'] += _local(parameter.grad).nbytes
    units = [*getattr(model.backbone, 'blocks', ()), *heads(model)]
    counts['largest shard'] = max(
        (sum(_local(p).nbytes for p in unit.parameters()) for unit in units), default=0)
    return counts


def _summarize(tracker: MemoryTracker, counts: Counter, frozen: set[int], shape: RunShape,
               engine: Engine) -> StepTrace:
    def numbers(*kinds: str) -> set[int]:
        return {n for n, kind in enumerate(tracker.kinds) if kind in kinds}

    permanent = numbers('optimizer', *['gradients'] * _keeps_gradients(engine, shape))
    offloaded = peaks(tracker, offloaded=numbers(*STATES) | frozen) if (
        engine.type == 'fsdp2') else {}
    return StepTrace(peaks(tracker, permanent=permanent), offloaded, counts, tracker.flops,
                     tracker.calls, tracker.moved_bytes)


def _local(tensor: Tensor) -> Tensor:
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor


def _local_parameter(parameter: nn.Parameter) -> nn.Parameter:
    """Returns this process's shard of a parameter, with its gradient."""
    if not isinstance(parameter, DTensor):
        return parameter
    local = nn.Parameter(parameter._local_tensor)
    local.grad = None if parameter.grad is None else _local(parameter.grad)
    return local
