"""The devices, batch and crop of a run."""
from dataclasses import dataclass

import torch

from ..distributed.memory import usable_bytes
from ..engine.cached.settings import CacheSettings
from ..engine.config import crop_of
from ..engine.run import Run
from ..feature_cache.layout import DTYPES


@dataclass(frozen=True)
class RunShape:
    """The sizes of a run.

    Attributes:
        device: 'cuda' or 'cpu'.
        ranks: Number of processes, one for each GPU.
        images: Images of a process in one forward pass.
        crop: Height and width of an image, in pixels.
        per_node: Processes of a node.
        accumulation: Batches whose gradients are added up for one step.
        memory: Bytes of a GPU (of the host, for 'cpu'); None if not known.
        cached: Dtype of the feature maps if they are read from a complete feature cache.
        has_blocks: Whether the backbone's blocks are on the device; a cached run without
            validation frees them.
    """
    device: str
    ranks: int
    images: int
    crop: tuple[int, int]
    per_node: int = 8
    accumulation: int = 1
    memory: int | None = None
    cached: torch.dtype | None = None
    has_blocks: bool = True

    @property
    def hosts(self) -> tuple[int, ...]:
        """Number of processes of each node; a rest that does not fill one is a node, too."""
        full, rest = divmod(self.ranks, self.per_node)
        return (self.per_node,) * full + (rest,) * bool(rest)

    @property
    def usable(self) -> int | None:
        """Bytes that tensors may fill."""
        if self.memory is None or self.device == 'cpu':
            return self.memory
        return usable_bytes(self.memory)


def run_shape_of(run: Run, memory: int | None) -> RunShape:
    """Returns the sizes of a run on devices with an amount of memory, in bytes."""
    batch, cache = run.batch, run.cfg.get('feature_cache')
    return RunShape(run.device, batch.ranks, batch.samples, crop_of(run.cfg),
                    accumulation=batch.accumulation, memory=memory,
                    cached=DTYPES[CacheSettings.of(cache).dtype] if cache else None,
                    has_blocks=not (cache and run.options.no_validate))
