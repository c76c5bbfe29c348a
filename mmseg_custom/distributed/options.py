"""``engine=dict(type=..., ...)`` of a config: how a run is spread over its processes."""
from dataclasses import dataclass, fields

from ..choices import ENGINES
from ..errors import InputError, refuse_unknown

FOLLOWING_FAST = ('compile', 'cuda_graphs')


@dataclass(frozen=True)
class Engine:
    """Options of :func:`.parallelize.parallelize`.

    Attributes:
        type: 'single' (one process), 'ddp' (each process has all weights), 'fsdp2' (each has its
            shard of weights, gradients and optimizer state) or 'auto': one process alone is
            'single', several are 'ddp' where the backbone's blocks are frozen and 'fsdp2' where
            they are trained.
        checkpoint_every: Recompute the activations of every k-th block, in backbones with
            activation checkpointing (``with_cp=True``).
        fast: Whether all options of speed are on that keep the tolerances of the fidelity tests,
            those named in :data:`FOLLOWING_FAST`; each can be set by itself.
        compile: Whether each block is compiled by torch.compile; default: ``fast``.
        cuda_graphs: Whether the frozen blocks are launched as one CUDA graph, on a GPU; default:
            ``fast``.
        prefetch: Blocks ahead whose weights FSDP2 gathers; 0 leaves the number to FSDP2.
        hybrid: Whether FSDP2 shards within a host and replicates over the hosts.
        cpu_offload: Whether FSDP2 keeps weights, gradients and optimizer state in the CPU's
            memory.
    """
    type: str = 'auto'
    checkpoint_every: int = 1
    fast: bool = False
    compile: bool | None = None
    cuda_graphs: bool | None = None
    prefetch: int = 1
    hybrid: bool = False
    cpu_offload: bool = False

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

    @classmethod
    def of_test(cls, options: dict | None) -> 'Engine':
        """Reads the options of speed, the only ones that a test has."""
        return cls.of({name: value for name, value in (options or {}).items()
                       if name in ('fast', *FOLLOWING_FAST)})

    def is_on(self, name: str) -> bool:
        """Returns whether one of the options that follow ``fast`` is on."""
        value = getattr(self, name)
        return self.fast if value is None else value


AUTO = Engine()
