"""Several segmentors that differ in their heads alone: windows pass the backbone once for all.

B windows, K classes, h w cells of a head's logits, H W pixels.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from .image_views import ImageView, WindowedView
from .window_inference import WindowInference


class SeveralHeads(WindowInference):
    """Label maps of several segmentors, each of which are those that it computes alone.

    It has no modules, and is not trained or saved. :meth:`label_maps` returns a list of the
    segmentors' label maps in the place of each label map.

    Args:
        segmentors: Segmentors with the same ``test_cfg``, whose backbones take feature maps in the
            place of windows.
        features: Function of windows (B, 3, H, W) that returns the feature maps of all layers.
        positions: For each segmentor, the positions of the maps that its backbone takes.
    """

    def __init__(self, segmentors: Sequence[WindowInference],
                 features: Callable[..., list[Tensor]], positions: Sequence[Sequence[int]]):
        super().__init__()
        self._heads = list(zip(segmentors, positions))
        self._features = features
        self.test_cfg = segmentors[0].test_cfg

    def window_logits(self, windows: Any, metas: list, lockstep: bool = False) -> Any:
        """Computes the logits (K, h, w) of each head for each window."""
        maps = self._features(windows)
        return list(zip(*(segmentor.window_logits([maps[i] for i in positions], metas, lockstep)
                          for segmentor, positions in self._heads)))

    def _plan(self, view: ImageView) -> '_SharedView':
        plan = super()._plan(view)
        return _SharedView(**vars(plan), of_heads=[replace(plan) for _ in self._heads])

    def _label(self, views: Sequence[Any]) -> Any:
        """Computes the label maps (H, W) of an image."""
        return [segmentor._label([view.of_heads[i] for view in views])
                for i, (segmentor, _) in enumerate(self._heads)]


@dataclass
class _SharedView(WindowedView):
    """One view of one image, with the logits of each head."""
    of_heads: list[WindowedView] = field(default_factory=list)

    def put(self, i: int, j: int, cells: Any) -> None:
        """Stores the logits (K, h, w) of each head for the window in row i and column j."""
        for view, own in zip(self.of_heads, cells):
            view.put(i, j, own)
