"""The frozen part that the heads of a sweep share, and what stands in its place in each of them.

B images or windows, D width, h w patch grid.
"""
import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from mmcv import Config
from mmseg.models.builder import build_backbone
from torch import Tensor, nn

from ...distributed.precision import apply_precision
from ...models import InternViT6B
from ...models.frozen_features import frozen_features
from ..build import check_finite, compute_dtype


class SharedBackbone:
    """A frozen backbone that computes the maps of a crop or a window once for all heads.

    Args:
        cfg: Of any of the heads.
        layers: Blocks whose tokens any head reads.
        device: 'cuda' or 'cpu'.

    Attributes:
        holder: A module with it as ``backbone``, for what expects a segmentor.
        layers: See above.
    """

    def __init__(self, cfg: Config, layers: Sequence[int], device: str):
        options = copy.deepcopy(cfg.model.backbone)
        options.update(out_indices=list(layers), with_fpn=False)
        self.holder, self.layers = nn.Module(), list(layers)
        self.holder.backbone = build_backbone(options)
        self._drawn = torch.get_rng_state()  # what a run alone builds its head from
        apply_precision(self.holder, compute_dtype(cfg, self.holder), device)
        if cfg.get('check_finite'):
            check_finite(self.holder)
        self._windows: dict[tuple, list[Tensor]] = {}

    @property
    def network(self) -> InternViT6B:
        """The backbone itself."""
        return self.holder.backbone

    def as_after_building(self) -> None:
        """Puts torch's generator where it was when the backbone was built."""
        torch.set_rng_state(self._drawn)

    def of_batch(self, batch: dict) -> list[Tensor]:
        """The maps (B, D, h, w) of a training batch, one a layer, of images or out of a cache."""
        return frozen_features(self.holder, batch)

    def of_windows(self, windows: Tensor) -> list[Tensor]:
        """The maps of windows (B, 3, H, W), one a layer; kept until :meth:`forget`.

        Heads cut the same windows out of an image, though not always as many at once.
        """
        keys = [(x.shape, x.cpu().numpy().tobytes()) for x in windows]
        new = [i for i, key in enumerate(keys) if key not in self._windows]
        if new:
            maps = self.network.frozen_features(windows[new])
            for place, i in enumerate(new):
                self._windows[keys[i]] = [x[place] for x in maps]
        return [torch.stack([self._windows[key][i] for key in keys])
                for i in range(len(self.layers))]

    def forget(self) -> None:
        """Lets the maps of windows go."""
        self._windows.clear()

    def places(self, layers: Sequence[int]) -> list[int]:
        """Where the maps of some layers are among those that are computed."""
        return [self.layers.index(layer) for layer in layers]


class TrainedPart(nn.Module):
    """Stands for a backbone in a head's segmentor: the pyramid, if there is one.

    Wrappers, optimizers and modes so see nothing of the frozen billions.

    Args:
        whole: The backbone, with the frozen part that is shared.
        shared: Computes the maps of windows.
    """

    def __init__(self, whole: InternViT6B, shared: SharedBackbone):
        super().__init__()
        self.places = shared.places(whole.out_indices)
        self._apart = (whole, shared)  # in a tuple, and so no submodules
        for name, level in whole.pyramid.items():
            self.add_module(name, level)

    def forward(self, images: Tensor | list[Tensor]) -> list[Tensor]:
        """Windows (B, 3, H, W), or the maps (B, D, h, w) that this head reads -> its inputs."""
        whole, shared = self._apart
        if isinstance(images, Tensor):
            maps = shared.of_windows(images)
            images = [maps[i] for i in self.places]
        return whole(images)


@contextmanager
def whole(model: nn.Module) -> Iterator[nn.Module]:
    """A head's segmentor with its backbone in full, for checkpoints."""
    part = model.backbone
    model.backbone = part._apart[0]
    try:
        yield model
    finally:
        model.backbone = part
