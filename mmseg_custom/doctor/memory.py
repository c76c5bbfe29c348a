"""Peak memory of a training step on each GPU, by part, for every way to run it.

The segmentor of the config takes its whole step (forward, backward, optimizer) on fake tensors of
the real size, as it is and again as FSDP2 shards it among pretended processes; the tracker tells
what is there at each moment. So whatever autograd keeps, and whatever FSDP2 gathers ahead, is
counted where it happens. A deep backbone is followed at two smaller depths (:mod:`.depth`). The
parts, at the moment at which most is there:

    weights      frozen weights, buffers, casts and gathered copies of trained weights
    masters      trained weights as they are stored
    gradients    of trained weights
    optimizer    its moments
    activations  what the backbone keeps for the backward pass, and the batch
    head         what the heads and the losses keep
    workspace    everything that lives for an operation or two, and the libraries' own buffers

What is not counted: the CUDA context and NCCL's buffers (:data:`RESERVE`), cuDNN's workspaces.
"""
import copy
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch.distributed as dist
from mmcv import Config
from mmcv.runner import build_optimizer
from mmseg.models import build_segmentor
from mmseg.utils import get_root_logger
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.nn import functional as F  # noqa: N812

from ..distributed.memory import state_bytes, storage_of
from ..distributed.options import Engine
from ..distributed.parallelize import heads, shard
from ..distributed.precision import apply_precision, move_casts_to_fsdp
from ..engine.batch import split_batch
from ..engine.build import build_on_meta, compute_dtype, master_dtype
from ..engine.config import loader_options
from ..errors import InputError
from ..layers.pos_embed import resample_pos_embed
from ..layers.sync_batch_norm import sync_batch_norm_on_cpu
from ..optim.low_memory import NAME as LOW_MEMORY
from .depth import EDGE, REST, Step, cut, depths, extended, watched
from .memory_tracker import KINDS, AllocationSite, MemoryTracker, peaks, simulate_gpu

MIB, GIB = 2**20, 2**30
CUBLAS = 32 * MIB  # what PyTorch gives cuBLAS to work in on Hopper; 8 MiB elsewhere
# Code of libraries that a first step touches, and what oneDNN and the allocator keep, of a frozen
# backbone and of one that is trained. Measured: 5 to 18 MiB in a process that has taken a step,
# 25 to 42 in a new one.
ON_CPU = {False: 18 * MIB, True: 28 * MIB}
DDP_COPIES = 2 * 250 * MIB  # DDP sends its first weights in two buckets at a time
RESERVE = GIB  # CUDA context, NCCL, and what a GPU named "80 GB" lacks of it
FRAGMENTATION = 0.03  # of the memory, that PyTorch's allocator loses between blocks
SHARDED = ('masters', 'gradients', 'optimizer')


@dataclass(frozen=True)
class Plan:
    """What a run is to be.

    Attributes:
        device: 'cuda' or 'cpu'.
        ranks: Processes; one a GPU.
        per_node: Processes a node, for ``engine.hybrid``.
        images: Images that a process takes at once.
        accumulation: Batches that it adds up.
        crop: Height and width of an image, in pixels.
        memory: Bytes of a GPU (of the host, for 'cpu'); None if not known.
    """
    device: str
    ranks: int
    images: int
    crop: tuple[int, int]
    per_node: int = 8
    accumulation: int = 1
    memory: int | None = None

    @property
    def usable(self) -> int | None:
        """Bytes that a run may fill."""
        if self.memory is None or self.device == 'cpu':
            return self.memory
        return int(self.memory * (1 - FRAGMENTATION)) - RESERVE


@dataclass
class Mode:
    """One way to run, and what it takes.

    Attributes:
        engine: 'single', 'ddp' or 'fsdp2'.
        checkpointing: Whether the backbone's activations are recomputed.
        offload: Whether FSDP2 keeps its shards in the host's memory.
        parts: Bytes on the GPU by part, at the peak.
        host: Bytes in the host's memory for this process, with ``offload``.
        when: 'start', 'forward', 'backward' or 'optimizer': when the peak is.
        flops: Dtype -> floating-point operations of a step, of one process.
        moved_bytes: That its other operations read and write.
        chosen: Whether the config runs this way.
        fits: Whether it fits; None if the memory is not known.
    """
    engine: str
    checkpointing: bool
    offload: bool
    parts: dict[str, int]
    host: int = 0
    when: str = ''
    flops: dict[torch.dtype, int] = field(default_factory=dict)
    moved_bytes: int = 0
    chosen: bool = False
    fits: bool | None = None

    @property
    def peak(self) -> int:
        """Bytes on the GPU."""
        return sum(self.parts.values())

    @property
    def name(self) -> str:
        """In words."""
        words = [self.engine] + ['offload'] * self.offload
        return ' + '.join(words + ['checkpointing'] * self.checkpointing)

    def as_dict(self) -> dict:
        """For --json."""
        return dict(name=self.name, engine=self.engine, checkpointing=self.checkpointing,
                    offload=self.offload, chosen=self.chosen, fits=self.fits,
                    peak_bytes=self.peak, parts=self.parts, host_bytes=self.host, when=self.when)


def plan_of(cfg: Config, device: str, ranks: int, memory: int | None) -> Plan:
    """Reads batch and crop off a config."""
    images = loader_options(cfg, 'train')['samples_per_gpu']
    accumulation = cfg.get('accumulation', 1)
    if cfg.get('total_batch'):
        images, accumulation = split_batch(cfg.total_batch, ranks, images)
    return Plan(device, ranks, images, crop_of(cfg), accumulation=accumulation, memory=memory)


def crop_of(cfg: Config) -> tuple[int, int]:
    """(H, W) in pixels of what the training pipeline puts out."""
    train = cfg.data.train
    while 'dataset' in train:
        train = train.dataset
    if isinstance(train, list):
        train = train[0]
    for step in reversed(train.get('pipeline') or []):
        size = step.get('size') or step.get('crop_size')
        if step['type'] in ('Pad', 'PadShortSide', 'RandomCrop') and size is not None:
            return (size, size) if isinstance(size, int) else tuple(size)
    size = cfg.get('crop_size') or (cfg.model.backbone.get('img_size', 224),) * 2
    return tuple(size)


def predict(cfg: Config, plan: Plan, progress=lambda text: None) -> list[Mode]:
    """Predicts every mode; the config's own is marked.

    Args:
        cfg: Its pretrained file is not read.
        plan: What the run is to be.
        progress: Is told what comes next.

    Raises:
        InputError: If the network cannot be built, or does not run on what the pipeline makes.
    """
    engine = Engine.of(cfg.get('engine'))
    trained = _trains_blocks(cfg)
    whole = 'single' if plan.ranks == 1 else 'ddp'
    chosen = engine.type if engine.type != 'auto' else (
        'single' if plan.ranks == 1 else 'fsdp2' if trained else 'ddp')
    whole = chosen if chosen in ('single', 'ddp') else whole
    with_cp = bool(cfg.model.backbone.get('with_cp', True)) and trained
    modes = []
    for checkpointing in (True, False) if trained else (False,):
        for kind in (whole, 'fsdp2'):
            progress(f'{kind}, {"with" if checkpointing else "without"} checkpointing')
            modes += _trace(cfg, plan, replace(engine, type=kind), checkpointing)
    for mode in modes:
        mode.chosen = (mode.engine, mode.checkpointing, mode.offload) == (
            chosen, with_cp, chosen == 'fsdp2' and engine.cpu_offload)
        # On the CPU the processes share what there is.
        share = mode.peak * plan.ranks if plan.device == 'cpu' else mode.peak
        mode.fits = None if plan.usable is None else share <= plan.usable
    return sorted(modes, key=lambda mode: (mode.offload, mode.engine == 'fsdp2'))


def _trains_blocks(cfg: Config) -> bool:
    return not (cfg.model.backbone.get('freeze_vit', False)
                or cfg.model.backbone.type != 'InternViT6B')


def _trace(cfg: Config, plan: Plan, engine: Engine, checkpointing: bool) -> list[Mode]:
    """The modes of one engine: with FSDP2 also the one that offloads."""
    step = _follow(cfg, plan, engine, checkpointing)
    peaks = {**step.peaks, ('start', 0): {**dict.fromkeys(KINDS, 0),
                                          **_at_start(step.counts, plan, engine)}}
    mode = Mode(engine.type, checkpointing, False, {},
                flops=_times(step.flops, plan.accumulation),
                moved_bytes=step.moved_bytes * plan.accumulation)
    libraries = CUBLAS if plan.device == 'cuda' else ON_CPU[_trains_blocks(cfg)]
    modes = [_at_peak(mode, peaks, libraries)]
    if engine.type == 'fsdp2' and plan.device == 'cuda':
        # The optimizer works in the host's memory. A unit's shard is on its way up, and that of
        # its gradients on its way down.
        on_gpu = {place: parts for place, parts in step.offloaded.items()
                  if place[0] != 'optimizer'}
        host = sum(step.counts[kind] for kind in ('frozen', *SHARDED))
        modes.append(_at_peak(replace(mode, offload=True, host=host), on_gpu,
                              libraries + 2 * step.counts['largest shard']))
    elif engine.type == 'fsdp2':  # the host's memory is where it was already
        modes.append(replace(modes[0], offload=True, parts=dict(modes[0].parts)))
    return modes


def _at_start(counts: Counter, plan: Plan, engine: Engine) -> dict[str, int]:
    """What is there before the first step, where that may be more than in a step."""
    if engine.type == 'ddp':  # copies of all tensors are on their way to all processes
        return dict(weights=counts['weights'], masters=counts['masters'],
                    workspace=min(counts['weights'] + counts['masters'], DDP_COPIES))
    if engine.type == 'fsdp2' and plan.device == 'cpu':  # the network, and its first shards
        return dict(weights=counts['built'], workspace=counts['largest shard'])
    return {}


def _at_peak(mode: Mode, peaks: dict[AllocationSite, dict[str, int]], more: int) -> Mode:
    """A mode with the parts of the place where most is there, and ``more`` bytes of workspace."""
    (phase, _), parts = max(peaks.items(), key=lambda item: sum(item[1].values()))
    return replace(mode, when=phase, parts={**parts, 'workspace': parts['workspace'] + more})


def _follow(cfg: Config, plan: Plan, engine: Engine, checkpointing: bool) -> Step:
    """The step of the network, or the same from two of fewer blocks."""
    edge = max(EDGE, engine.prefetch + 1)
    if cfg.model.backbone.type != 'InternViT6B':
        return _take_step(cfg, plan, engine, checkpointing, edge)
    few, *more = depths(cfg, engine, edge)
    steps = [_take_step(cut(cfg, read, edge), plan, engine, checkpointing, edge)
             for read in (few, *more[:1])]
    if not more:
        return steps[0]
    return extended(*steps, (more[1] - few) // (more[0] - few))


def _take_step(cfg: Config, plan: Plan, engine: Engine, checkpointing: bool, edge: int) -> Step:
    """One training step in the tracker."""
    cfg = copy.deepcopy(cfg)  # Config.copy shares what is inside
    tracker = MemoryTracker(copying_collectives=plan.device == 'cpu')
    grouped = nullcontext() if engine.type == 'single' else _pretended_group(plan, engine)
    on_gpu = simulate_gpu() if plan.device == 'cuda' else nullcontext()
    with grouped as mesh, _quiet(), on_gpu:
        model = _build(cfg, plan, checkpointing)
        if hasattr(model.backbone, 'set_checkpointing'):
            model.backbone.set_checkpointing(engine.checkpoint_every)
        built = _built(model, cfg)
        with FakeTensorMode(allow_non_fake_inputs=True):
            _give_fake_memory(model)
            with tracker:
                _prepare(model, cfg, engine, tracker, mesh)
                states = _run(model, cfg, plan, engine, tracker, edge)
                counts, frozen = _counts(model, states), _frozen(model, tracker)
    counts['built'] = built
    optimizer, gradients, masters = (
        {n for n, kind in enumerate(tracker.kinds) if kind == name}
        for name in ('optimizer', 'gradients', 'masters'))
    always = optimizer
    if engine.type == 'ddp' or plan.accumulation > 1:  # DDP's buckets hold all gradients
        always = optimizer | gradients
    away = optimizer | gradients | masters | frozen if engine.type == 'fsdp2' else None
    return Step(peaks(tracker, always=always), peaks(tracker, away=away) if away else {},
                counts, tracker.flops, tracker.moved_bytes)


def _prepare(model: nn.Module, cfg: Config, engine: Engine, tracker: MemoryTracker,
             mesh: DeviceMesh | None) -> None:
    """Shards the network where that is asked for, and notes its weights."""
    tracker.tag(model.buffers(), 'weights')
    if engine.type == 'fsdp2':
        shard(model, 'cpu', engine, *move_casts_to_fsdp(model.backbone), master_dtype(cfg), mesh)
    for parameter in model.parameters():
        tracker.tag((_local(parameter),), 'masters' if parameter.requires_grad else 'weights')
    model.train()
    if hasattr(model.backbone, 'positions'):  # the cache asks for addresses
        model.backbone.positions = resample_pos_embed


def _run(model: nn.Module, cfg: Config, plan: Plan, engine: Engine, tracker: MemoryTracker,
         edge: int) -> list[Tensor]:
    """Runs the step, and returns the tensors of the optimizer's state."""
    batch = _batch(plan)
    tracker.tag((batch['img'], batch['gt_semantic_seg']), 'activations')
    low_memory = cfg.optimizer.type == LOW_MEMORY
    if not low_memory:
        optimizer = build_optimizer(model, _foreach(cfg.optimizer, plan))
    with watched(model, tracker, edge):
        loss = model.train_step(batch, None)['loss']
    tracker.at('backward', REST)
    loss.backward()
    tracker.where = 'workspace'
    tracker.tag((_local(p.grad) for p in model.parameters() if p.grad is not None), 'gradients')
    tracker.at('optimizer')
    if low_memory:  # its own tensor types do not come as fake ones
        moments = state_bytes(model, engine.type, plan.ranks, engine,
                              storage=storage_of(cfg.optimizer)).optimizer
        states = [torch.empty(moments, dtype=torch.uint8)]
    else:
        states = _step(optimizer)
    tracker.tag(states, 'optimizer')
    return states


def _step(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Takes a step, and returns the tensors of the optimizer's state."""
    for group in optimizer.param_groups:
        group['params'] = [_share(p) for p in group['params']]
    optimizer.step()
    return [_local(value) for values in optimizer.state.values()
            for value in values.values() if isinstance(value, Tensor)]


def _build(cfg: Config, plan: Plan, checkpointing: bool) -> nn.Module:
    """The segmentor on the meta device, with the dtypes that it trains in."""
    cfg.model.backbone.pretrained = cfg.model.pretrained = None
    if cfg.model.backbone.type == 'InternViT6B':
        cfg.model.backbone.with_cp = checkpointing
    with build_on_meta(cfg):
        model = build_segmentor(cfg.model, train_cfg=cfg.get('train_cfg'),
                                test_cfg=cfg.get('test_cfg'))
    dtype = compute_dtype(cfg, model)
    if dtype is not None:
        apply_precision(model, dtype, plan.device, master_dtype=master_dtype(cfg))
    if plan.device == 'cpu' and plan.ranks > 1:
        sync_batch_norm_on_cpu(model)
    else:  # torch's keeps what plain batch norm keeps, and runs on GPUs alone
        for module in model.modules():
            if isinstance(module, nn.SyncBatchNorm):
                module.forward = partial(_batch_norm, module)
    return model


def _batch_norm(norm: nn.SyncBatchNorm, x: Tensor) -> Tensor:
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, True,
                        norm.momentum or 0.1, norm.eps)


def _give_fake_memory(model: nn.Module) -> None:
    """Puts fake tensors of the CPU in the place of all parameters and buffers."""
    known: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is not None:
                if id(old) not in known:
                    known[id(old)] = nn.Parameter(torch.empty(old.shape, dtype=old.dtype),
                                                  requires_grad=old.requires_grad)
                module._parameters[name] = known[id(old)]
        for name, old in module._buffers.items():
            if old is not None:
                module._buffers[name] = torch.empty(old.shape, dtype=old.dtype)


def _batch(plan: Plan) -> dict:
    height, width = plan.crop
    return dict(img=torch.empty(plan.images, 3, height, width),
                gt_semantic_seg=torch.empty(plan.images, 1, height, width, dtype=torch.long),
                img_metas=[{}] * plan.images)


def _foreach(optimizer: dict, plan: Plan) -> dict:
    """On GPUs torch's optimizers treat the tensors of a group at once, with memory for all."""
    options = dict(optimizer)
    takes = getattr(torch.optim, options['type'], None)
    if plan.device == 'cuda' and takes and 'foreach' in takes.__init__.__annotations__:
        if not options.get('fused') and options.get('foreach') is None:
            options['foreach'] = True
    return options


@contextmanager
def _pretended_group(plan: Plan, engine: Engine) -> Iterator[DeviceMesh]:
    """A process group of ``plan.ranks`` processes of which only this one exists."""
    from torch.testing._internal.distributed.fake_pg import FakeStore
    if dist.is_initialized():
        raise InputError('the doctor pretends a process group of its own: run it by itself, not '
                         'under a launcher')
    dist.init_process_group('fake', store=FakeStore(), rank=0, world_size=plan.ranks)
    try:
        shape, names = (plan.ranks,), ('shard',)
        if engine.hybrid and plan.ranks % plan.per_node == 0:
            shape = (plan.ranks // plan.per_node, plan.per_node)
            names = ('replicate', 'shard')
        yield init_device_mesh('cpu', shape, mesh_dim_names=names)
    finally:
        dist.destroy_process_group()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the log lines of building a network."""
    logger = get_root_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)


def _counts(model: nn.Module, states: list[Tensor]) -> Counter:
    counts = Counter(optimizer=sum(state.nbytes for state in states),
                     weights=sum(buffer.nbytes for buffer in model.buffers()))
    for parameter in model.parameters():
        size = _local(parameter).nbytes
        if parameter.requires_grad:
            counts['masters'] += size
        else:
            counts['frozen'] += size
            counts['weights'] += size
        if parameter.grad is not None:
            counts['gradients'] += _local(parameter.grad).nbytes
    units = [*getattr(model.backbone, 'blocks', ()), *heads(model)]
    counts['largest shard'] = max(
        (sum(_local(p).nbytes for p in unit.parameters()) for unit in units), default=0)
    return counts


def _built(model: nn.Module, cfg: Config) -> int:
    """Bytes of a network as it is built: the backbone in what it computes in."""
    dtype = compute_dtype(cfg, model) or torch.float32
    return sum(p.numel() * (dtype.itemsize if name.startswith('backbone.') else p.itemsize)
               for name, p in model.named_parameters())


def _frozen(model: nn.Module, tracker: MemoryTracker) -> set[int]:
    """Storages of the weights that are not trained."""
    return {tracker.number(_local(p)) for p in model.parameters() if not p.requires_grad}


def _local(tensor: Tensor) -> Tensor:
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor


def _share(parameter: nn.Parameter) -> nn.Parameter:
    """This process's share, whose elements an optimizer treats as it would the whole's."""
    if not isinstance(parameter, DTensor):
        return parameter
    share = nn.Parameter(parameter._local_tensor)
    share.grad = None if parameter.grad is None else parameter.grad._local_tensor
    return share


def _times(flops: Counter, factor: int) -> dict[torch.dtype, int]:
    return {dtype: count * factor for dtype, count in flops.items()}
