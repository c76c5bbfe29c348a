"""Peak memory of a training step on each GPU, by kind, for every strategy of running it.

The segmentor of the config takes its whole step (forward, backward, optimizer) on fake tensors of
the real size (:mod:`.fake_step`), unsharded and again sharded by FSDP2 over simulated processes.
So whatever autograd keeps and whatever FSDP2 gathers ahead is counted where it is allocated. A
deep backbone is traced at smaller depths (:mod:`.depth`). The kinds, at the moment of the peak:

    weights         frozen weights, buffers, casts and gathered copies of trained weights
    master weights  trained weights as they are stored
    gradients       gradients of trained weights
    optimizer       moments of trained weights
    activations     what the backbone keeps for the backward pass, and the batch
    head            what the heads and the losses keep
    workspace       what lives for an operation or two, and the libraries' own buffers

Not counted are the CUDA context and NCCL's buffers (:data:`..distributed.memory.RESERVE`), and what
cuDNN's convolutions take beyond copies of their tensors with the channels last.
"""
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from mmcv import Config

from ..distributed.options import Engine
from ..distributed.topology import Topology, is_unresolved, resolve_topology
from ..engine.build import build_network, compute_dtype
from ..models.backbone_options import traits_of
from ..units import MIB
from .depth import (
    EDGE,
    Stretch,
    factors,
    recomputed_blocks,
    stretches_of,
    traced_networks,
    with_stretches,
)
from .fake_step import trace_step
from .kernels import Kernel, KernelCall
from .memory_tracker import KINDS, STATES, AllocationSite
from .recomputation import Recomputation, choose_blocks, limit_of
from .run_kind import can_shard, num_under_autograd, recomputes, type_of, unsharded_type
from .run_shape import RunShape
from .step_trace import StepTrace, extrapolate

CUBLAS = 32 * MIB  # workspace that PyTorch gives cuBLAS on Hopper; 8 MiB elsewhere
# Code of libraries that a first step loads, and what oneDNN and the allocator keep, of a frozen
# backbone and of one that is trained. Measured: 5 to 18 MiB in a process that has taken a step,
# 25 to 42 in a new one.
ON_CPU = {False: 18 * MIB, True: 28 * MIB}
DDP_COPIES = 2 * 250 * MIB  # DDP sends its first weights in two buckets at a time


@dataclass
class MemoryEstimate:
    """One strategy of running a training step, and the memory and operations that it takes.

    Attributes:
        engine: 'single', 'ddp' or 'fsdp2'.
        checkpointing: Whether the backbone's activations are recomputed.
        offload: Whether FSDP2 keeps its shards in the host's memory.
        blocks: Number of blocks, from the first under autograd, that are recomputed, where those
            behind are not.
        parts: Bytes on the GPU by kind, at the peak.
        host: Bytes in the host's memory for this process, with ``offload``.
        when: Phase of the peak: 'start', 'forward', 'backward' or 'optimizer'.
        flops: Floating-point operations of a step in one process, by kernel.
        calls: Largest call of each kernel.
        moved_bytes: Bytes that the other operations read and write.
        chosen: Whether the config runs this way.
        fits: Whether the memory suffices; None if it is not known.
    """
    engine: str
    checkpointing: bool
    offload: bool
    parts: dict[str, int]
    blocks: int | None = None
    host: int = 0
    when: str = ''
    flops: dict[Kernel, int] = field(default_factory=dict)
    calls: dict[Kernel, KernelCall] = field(default_factory=dict)
    moved_bytes: int = 0
    chosen: bool = False
    fits: bool | None = None

    @property
    def peak(self) -> int:
        """Bytes on the GPU."""
        return sum(self.parts.values())

    @property
    def name(self) -> str:
        """Name of the strategy."""
        words = [self.engine] + ['offload'] * self.offload
        of_blocks = '' if self.blocks is None else f' of {self.blocks} blocks'
        return ' + '.join(words + [f'checkpointing{of_blocks}'] * self.checkpointing)


def predict(cfg: Config, shape: RunShape,
            progress: Callable[[str], None] = lambda text: None) -> list[MemoryEstimate]:
    """Predicts the memory of every strategy, and marks that of the config.

    Args:
        cfg: Config of the run; its pretrained file is not read.
        shape: Sizes of the run.
        progress: Called with what comes next.

    Raises:
        InputError: If the network cannot be built, or does not run on what the pipeline returns.
    """
    engine = Engine.of(cfg.get('engine'))
    recomputing = (True, False) if num_under_autograd(cfg) else (False,)
    chosen = type_of(cfg, shape, engine)
    unsharded = chosen if chosen != 'fsdp2' else unsharded_type(shape)
    with_cp = recomputes(cfg)
    estimates = []
    for kind in (unsharded, 'fsdp2') if can_shard(cfg, shape) else (unsharded,):
        resolved = resolve_engine(cfg, shape, replace(engine, type=kind))
        for checkpointing in recomputing:
            progress(f'{kind}, {"with" if checkpointing else "without"} checkpointing')
            estimates += (estimate_on_demand(cfg, shape, resolved)
                          if checkpointing and resolved.recomputes_on_demand
                          else estimate(cfg, shape, resolved, checkpointing))
    for each in estimates:
        each.chosen = (each.engine, each.checkpointing, each.offload) == (
            chosen, with_cp, chosen == 'fsdp2' and engine.cpu_offload)
        each.fits = fits(each, shape)
    return sorted(estimates, key=lambda each: (each.offload, each.engine == 'fsdp2',
                                               not each.checkpointing))


def fits(estimate: MemoryEstimate, shape: RunShape) -> bool | None:
    """Returns whether the memory of a run's devices suffices; None if that is not known."""
    # On the CPU all processes share the memory.
    needed = estimate.peak * (shape.ranks if shape.device == 'cpu' else 1)
    return None if shape.usable is None else needed <= shape.usable


def resolve_engine(cfg: Config, shape: RunShape, engine: Engine) -> Engine:
    """Returns an engine of a known type with what the hosts of the run decide decided."""
    if engine.type != 'fsdp2' or not is_unresolved(engine):
        return engine
    model = build_network(cfg, on_meta=True)
    usable = shape.usable if shape.device == 'cuda' else None
    return resolve_topology(engine, model, Topology(shape.hosts, usable),
                            compute_dtype(cfg, model) or torch.float32, cfg.optimizer)


def estimate(cfg: Config, shape: RunShape, engine: Engine,
             checkpointing: bool) -> list[MemoryEstimate]:
    """Predicts the memory of one engine, its type resolved; of FSDP2 also that with offloading."""
    return Traces(cfg, shape).estimate(engine, checkpointing)


def estimate_on_demand(cfg: Config, shape: RunShape, engine: Engine) -> list[MemoryEstimate]:
    """Predicts the memory with as many recomputed blocks as it asks for."""
    traces = Traces(cfg, shape)
    return traces.estimate(engine.with_recomputed(traces.choose(engine).blocks), True)


class Traces:
    """Estimates of a run; numbers of recomputed blocks share the traces that they follow from.

    Args:
        cfg: Config of the run; its pretrained file is not read.
        shape: Sizes of the run.
    """

    def __init__(self, cfg: Config, shape: RunShape):
        self._cfg, self._shape = cfg, shape
        self._found: dict[tuple, StepTrace] = {}

    def choose(self, engine: Engine) -> Recomputation:
        """Chooses the number of blocks to be recomputed."""
        return choose_blocks(partial(self.peak, engine), num_under_autograd(self._cfg),
                             limit_of(self._shape))

    def peak(self, engine: Engine, blocks: int) -> int:
        """Predicts the bytes of a GPU where so many blocks under autograd are recomputed."""
        plain, *offloaded = self.estimate(engine.with_recomputed(blocks), True)
        return (offloaded[0] if engine.cpu_offload and offloaded else plain).peak

    def estimate(self, engine: Engine, checkpointing: bool) -> list[MemoryEstimate]:
        """See :func:`estimate`."""
        if not checkpointing:
            engine = replace(engine, checkpoint_blocks=None)
        return _estimates(self._cfg, self._shape, engine, checkpointing,
                          self._trace(engine, checkpointing))

    @staticmethod
    def edge(engine: Engine) -> int:
        """Returns the number of blocks at either end of a stretch that are sites of their own."""
        return max(EDGE, engine.prefetch + 1)

    def _trace(self, engine: Engine, checkpointing: bool) -> StepTrace:
        """Traces the step of the network, or those of shallower ones."""
        cfg, edge = self._cfg, self.edge(engine)
        if not traits_of(cfg.model.backbone).is_tunable:
            return trace_step(cfg, self._shape, engine, checkpointing, edge)
        stretches = stretches_of(cfg, engine, checkpointing)
        networks = traced_networks(stretches, engine.every_kth, edge)
        if networks is None:
            return self._trace_network(stretches, engine, checkpointing)
        least, *deeper = (self._trace_network(each, engine, checkpointing) for each in networks)
        return extrapolate(least, deeper, factors(networks, stretches))

    def _trace_network(self, stretches: list[Stretch], engine: Engine,
                       checkpointing: bool) -> StepTrace:
        engine = replace(engine, checkpoint_blocks=recomputed_blocks(stretches, engine))
        key = tuple(stretches), engine, checkpointing
        if key not in self._found:
            self._found[key] = trace_step(with_stretches(self._cfg, stretches), self._shape,
                                          engine, checkpointing, self.edge(engine))
        return self._found[key]


def _estimates(cfg: Config, shape: RunShape, engine: Engine, checkpointing: bool,
               trace: StepTrace) -> list[MemoryEstimate]:
    at_start = {**dict.fromkeys(KINDS, 0), **_at_start(trace.counts, shape, engine)}
    base = MemoryEstimate(
        engine.type, checkpointing, False, {}, moved_bytes=trace.moved_bytes * shape.accumulation,
        flops={kernel: count * shape.accumulation for kernel, count in trace.flops.items()},
        calls=trace.calls, blocks=engine.checkpoint_blocks)
    libraries = CUBLAS if shape.device == 'cuda' else ON_CPU[num_under_autograd(cfg) > 0]
    plain = _at_peak(base, {**trace.peaks, ('start', ''): at_start}, libraries)
    if engine.type != 'fsdp2':
        return [plain]
    if shape.device == 'cpu':  # the shards are in the host's memory already
        return [plain, replace(plain, offload=True, parts=dict(plain.parts))]
    # The optimizer works in the host's memory. A unit's shard is copied to the GPU while that of
    # its gradients is copied back.
    on_gpu = {site: parts for site, parts in trace.offloaded.items() if site[0] != 'optimizer'}
    host = sum(trace.counts[kind] for kind in ('frozen', *STATES))
    return [plain, _at_peak(replace(base, offload=True, host=host), on_gpu,
                            libraries + 2 * trace.counts['largest shard'])]


def _at_start(counts: Counter, shape: RunShape, engine: Engine) -> dict[str, int]:
    """Returns what is allocated before the first step, which may be more than in a step."""
    weights, master_weights = counts['weights'], counts['master weights']
    if engine.type == 'ddp':  # copies of all tensors are being sent to all processes
        return {'weights': weights, 'master weights': master_weights,
                'workspace': min(weights + master_weights, DDP_COPIES)}
    if engine.type == 'fsdp2' and shape.device == 'cpu':  # the network, and its first shards
        return dict(weights=counts['built'], workspace=counts['largest shard'])
    return {}


def _at_peak(base: MemoryEstimate, peaks: dict[AllocationSite, dict[str, int]],
             libraries: int) -> MemoryEstimate:
    """Adds the memory at the site with the highest peak, and the libraries' own."""
    (phase, _), parts = max(peaks.items(), key=lambda item: sum(item[1].values()))
    return replace(base, when=phase, parts={**parts, 'workspace': parts['workspace'] + libraries})
