"""``engine=dict(type=..., ...)`` of a config: how a run is spread over its processes."""
from dataclasses import dataclass, fields, replace

import torch

from ..choices import ENGINES
from ..errors import InputError, refuse_unknown

AUTOMATIC = 'auto'  # value of an option that the run's memory or hosts decide
REDUCE_DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16)
FOLLOWING_FAST = ('compile', 'cuda_graphs', 'fused_optimizer')  # are `fast` where they are None


@dataclass(frozen=True)
class Engine:
    """Options of :func:`.parallelize.parallelize`.

    Attributes:
        type: 'single' (one process), 'ddp' (each process has all weights), 'fsdp2' (each has its
            shard of weights, gradients and optimizer state) or 'auto': one process alone is
            'single', several are 'ddp' where the backbone's blocks are frozen and 'fsdp2' where
            they are trained.
        fast: Default of the options that follow it, here and in the rest of the config
            (``head_precision``, ``sweep.batched``): all that make a run faster and keep its results
            within the tolerances of the fidelity tests.
        checkpoint_every: Recompute the activations of every k-th block, in backbones with
            activation checkpointing (``with_cp=True``). 'auto' recomputes as many of the first
            blocks as the memory asks for: see :mod:`..doctor.recomputation`. None stands for
            'auto' with ``fast``, else for 1.
        checkpoint_blocks: Number of blocks, from the first under autograd, that
            ``checkpoint_every`` applies to; the later ones keep their activations. None: all
            blocks. 'auto' fills it in.
        compile: Whether each block is compiled by torch.compile; default: ``fast``.
        cuda_graphs: Whether the frozen blocks are launched as one CUDA graph, on a GPU; default:
            ``fast``.
        fused_optimizer: Whether the optimizer's step is one fused kernel, where torch has one:
            see :mod:`..optim.fused`; default: ``fast``.
        prefetch: Blocks ahead whose weights FSDP2 gathers; 0 leaves the number to FSDP2.
        hybrid: Whether FSDP2 shards within a host and replicates over the hosts; 'auto' does
            where the GPUs of a host have memory for all states: see :mod:`.topology`.
        reshard_after_forward: Whether FSDP2 frees the gathered weights of a block after its
            forward pass, and gathers them again for the backward pass. 'auto' does so unless the
            weights are sharded over several hosts and fit into memory: see :mod:`.topology`.
        reduce_dtype: Dtype that FSDP2 reduces gradients in, 'fp32' or 'bf16'; the latter for those
            of the backbone alone.
        cpu_offload: Whether FSDP2 keeps weights, gradients and optimizer state in the CPU's
            memory.
    """
    type: str = 'auto'
    fast: bool = False
    checkpoint_every: int | str | None = None
    checkpoint_blocks: int | None = None
    compile: bool | None = None
    cuda_graphs: bool | None = None
    fused_optimizer: bool | None = None
    prefetch: int = 1
    hybrid: bool | str = AUTOMATIC
    reshard_after_forward: bool | str = AUTOMATIC
    reduce_dtype: str = 'fp32'
    cpu_offload: bool = False

    @property
    def every_kth(self) -> int:
        """Number k if every k-th block is recomputed; 1 as long as 'auto' is not resolved."""
        return self.checkpoint_every if isinstance(self.checkpoint_every, int) else 1

    @property
    def recomputes_on_demand(self) -> bool:
        """Whether the number of recomputed blocks depends on the memory and is not known yet."""
        every = AUTOMATIC if self.checkpoint_every is None and self.fast else self.checkpoint_every
        return every == AUTOMATIC and self.checkpoint_blocks is None

    def with_recomputed(self, blocks: int) -> 'Engine':
        """Returns the engine that recomputes this number of blocks, from the first."""
        return replace(self, checkpoint_every=1, checkpoint_blocks=blocks)

    def recomputes(self, block: int) -> bool:
        """Returns whether the activations of a block are recomputed.

        Args:
            block: Its position, from 0, among the blocks under autograd.
        """
        return block % self.every_kth == 0 and (
            self.checkpoint_blocks is None or block < self.checkpoint_blocks)

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
        engine._check_speed()
        engine._check_recomputation()
        engine._check_sharding()
        return engine

    def _check_speed(self) -> None:
        for name in FOLLOWING_FAST:
            value = getattr(self, name)
            if value not in (True, False, None):
                raise InputError(f'engine.{name}={value!r}: expected True or False; None stands '
                                 'for engine.fast')

    def _check_recomputation(self) -> None:
        every, blocks = self.checkpoint_every, self.checkpoint_blocks
        if every not in (None, AUTOMATIC) and (not isinstance(every, int) or every < 1):
            raise InputError(f'engine.checkpoint_every={every!r}: expected 1 or more, or '
                             "'auto'; model.backbone.with_cp=False turns checkpointing off")
        if blocks is not None and blocks < 0:
            raise InputError(f'engine.checkpoint_blocks={blocks}: expected 0 or more blocks')

    def _check_sharding(self) -> None:
        for name in ('hybrid', 'reshard_after_forward'):
            value = getattr(self, name)
            if not isinstance(value, bool) and value != AUTOMATIC:
                raise InputError(f"engine.{name}={value!r}: expected 'auto', True or False")
        if self.reduce_dtype not in REDUCE_DTYPES:
            raise InputError(f'engine.reduce_dtype={self.reduce_dtype!r}: expected one of '
                             f'{", ".join(REDUCE_DTYPES)}')
        if self.prefetch < 0:
            raise InputError(f'engine.prefetch={self.prefetch}: expected 0 or more blocks')

    @classmethod
    def of_test(cls, options: dict | None) -> 'Engine':
        """Reads the options of speed, the only ones that a test has."""
        return cls.of({name: value for name, value in (options or {}).items()
                       if name in ('fast', *FOLLOWING_FAST)})

    def is_on(self, name: str) -> bool:
        """Returns whether one of the options of :data:`FOLLOWING_FAST` is on."""
        value = getattr(self, name)
        return self.fast if value is None else value


AUTO = Engine()
