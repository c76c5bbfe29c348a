"""Several segmentors that differ in their heads alone: windows pass the backbone once for all.

B windows, K classes, h w cells of a head's logits, H W pixels.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from .batching import WindowBatch
from .encoder_decoder import InternViTSegmentor, _Job


class SeveralHeads(InternViTSegmentor):
    """Label maps of several segmentors, each of which are those that it computes alone.

    It has no modules of its own, and is not trained or saved. :meth:`forward_test` returns a list
    of the segmentors' label maps in the place of each label map.

    Args:
        segmentors: Segmentors with the same ``test_cfg``, whose backbones take feature maps in the
            place of windows.
        features: Function of windows (B, 3, H, W) that returns the feature maps of all layers.
        positions: For each segmentor, the positions of the maps that its backbone takes.
    """

    def __init__(self, segmentors: Sequence[InternViTSegmentor],
                 features: Callable[..., list[Tensor]], positions: Sequence[Sequence[int]]):
        nn.Module.__init__(self)
        self._heads = list(zip(segmentors, positions))  # a list, so that they are not submodules
        self._features, self._batch = features, WindowBatch()
        self.test_cfg = segmentors[0].test_cfg

    def _job(self, image: Tensor, meta: dict, rescale: bool) -> '_SharedJob':
        job = super()._job(image, meta, rescale)
        return _SharedJob(**vars(job), of_heads=[replace(job) for _ in self._heads])

    def _cells(self, windows: Tensor | list[Tensor], metas: list[dict], lockstep: bool) -> Any:
        """Computes the logits (K, h, w) of each head for each window."""
        maps = self._features(windows)
        return list(zip(*(segmentor._cells([maps[i] for i in positions], metas, lockstep)
                          for segmentor, positions in self._heads)))

    def _labels(self, jobs: Sequence[Any]) -> Any:
        """Computes the label maps (H, W) of an image."""
        return [segmentor._labels([job.of_heads[i] for job in jobs])
                for i, (segmentor, _) in enumerate(self._heads)]


@dataclass
class _SharedJob(_Job):
    """One view of one image, with the logits of each head."""
    of_heads: list[_Job] = field(default_factory=list)

    def put(self, i: int, j: int, cells: Any) -> None:
        """Stores the logits (K, h, w) of each head for the window in row i and column j."""
        for job, own in zip(self.of_heads, cells):
            job.put(i, j, own)
