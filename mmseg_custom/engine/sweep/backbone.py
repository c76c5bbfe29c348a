"""The frozen backbone that the heads of a sweep share, and its substitute in each of them.

B images or windows, D width, h w patch grid.
"""
import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from mmseg.models.builder import build_backbone
from torch import Tensor, nn

from ...distributed.acceleration import accelerate
from ...distributed.parallelize import read_blocks
from ...distributed.precision import apply_precision
from ...models import InternViT6B
from ...models.frozen_features import frozen_features
from ..build import check_finite, compute_dtype
from ..frozen_dtype import measure_frozen_dtype
from ..run import Run


class SharedBackbone:
    """Computes the feature maps of a crop or a window once for all heads, with a frozen backbone.

    Args:
        run: Run of one of the heads; any of them will do.
        layers: Indices of the blocks that any head reads.

    Attributes:
        holder: Module with the backbone as ``backbone``, for functions that expect a segmentor.
        layers: Indices of the blocks that any head reads.
    """

    def __init__(self, run: Run, layers: Sequence[int]):
        options = copy.deepcopy(run.cfg.model.backbone)
        options.update(out_indices=list(layers), with_fpn=False)
        self.holder, self.layers = nn.Module(), list(layers)
        self.holder.backbone = build_backbone(options)
        self._generator_state = torch.get_rng_state()  # A single run builds its head from here.
        apply_precision(self.holder, compute_dtype(run.cfg, self.holder), run.device)
        if run.options.check_finite:
            check_finite(self.holder)
        measure_frozen_dtype(run, self.network)
        accelerate(self.holder, read_blocks(self.holder), run.engine, run.device)
        self._windows: dict[tuple, list[Tensor]] = {}

    @property
    def network(self) -> InternViT6B:
        """The backbone itself."""
        return self.holder.backbone

    def restore_generator(self) -> None:
        """Sets torch's generator to its state after the backbone was built."""
        torch.set_rng_state(self._generator_state)

    def of_batch(self, batch: dict) -> list[Tensor]:
        """Returns the feature maps (B, D, h, w) of a training batch, one per layer."""
        return frozen_features(self.holder, batch)

    def of_windows(self, windows: Tensor) -> list[Tensor]:
        """Returns the feature maps of windows (B, 3, H, W) for the segmentors of mmseg.

        They are kept until :meth:`clear`, because all heads use the same windows of an image. The
        windows of :class:`.evaluation.SharedPrediction` do not come here.
        """
        keys = [(x.shape, x.cpu().numpy().tobytes()) for x in windows]
        new = [i for i, key in enumerate(keys) if key not in self._windows]
        if new:
            features = self.network.frozen_features(windows[new])
            for n, i in enumerate(new):
                self._windows[keys[i]] = [x[n] for x in features]
        return [torch.stack([self._windows[key][i] for key in keys])
                for i in range(len(self.layers))]

    def clear(self) -> None:
        """Frees the feature maps of windows."""
        self._windows.clear()

    def positions_of(self, layers: Sequence[int]) -> list[int]:
        """Returns the positions of layers among those whose feature maps are computed."""
        return [self.layers.index(layer) for layer in layers]


class TrainedPart(nn.Module):
    """Replaces the backbone in a head's segmentor by its trained part: the pyramid, if any.

    Wrappers, optimizers and ``train()`` then do not see the frozen parameters.

    Args:
        complete: Complete backbone, on the shared frozen weights.
        shared: Backbone that computes the feature maps of windows.

    Attributes:
        positions: Positions among the shared feature maps of those that this head reads.
    """

    def __init__(self, complete: InternViT6B, shared: SharedBackbone):
        super().__init__()
        self.positions = shared.positions_of(complete.out_indices)
        self._frozen = (complete, shared)  # a tuple, so that they are not submodules
        for name, level in complete.pyramid.items():
            self.add_module(name, level)

    @property
    def complete(self) -> InternViT6B:
        """Complete backbone, with its frozen part."""
        return self._frozen[0]

    def forward(self, images: Tensor | list[Tensor]) -> list[Tensor]:
        """Returns the head's inputs, from windows (B, 3, H, W) or feature maps (B, D, h, w)."""
        complete, shared = self._frozen
        if isinstance(images, Tensor):
            features = shared.of_windows(images)
            images = [features[i] for i in self.positions]
        return complete(images)


@contextmanager
def completed(model: nn.Module) -> Iterator[nn.Module]:
    """Puts the complete backbone into a head's segmentor, for checkpoints."""
    part = model.backbone
    model.backbone = part.complete
    try:
        yield model
    finally:
        model.backbone = part
