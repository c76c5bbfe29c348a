"""A vision transformer of another library: what is known of it, and how its weights are found.

B batch, D width, H W pixels, h w patch grid.
"""
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ...checkpoint.provenance import Place
from ...errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of values of 0 to 1
# In the names of buffers, or of their modules, that are tables of rotary positions: the libraries
# compute with them in float32, whatever the dtype of the parameters.
TABLES = ('rope', 'rotary', 'freq', 'periods', 'bands')


@dataclass(frozen=True)
class NetworkFacts:
    """What is known of a network before it has weights.

    Attributes:
        architecture: What it is, in a few words for messages.
        record: What its results depend on beside its weights, for keys of feature caches: the same
            for the same network in another folder.
        embed_dim: Width D.
        patch_size: Side of a patch in pixels.
        depth: Number of layers.
        img_size: Side in pixels of the images that it was trained with, as far as is known.
        mean: Mean that it expects to be subtracted from channels of 0 to 1.
        std: Standard deviation that it expects them to be divided by.
        names_normalization: Whether mean and std are those of its config or folder, no default.
        has_norm: Whether it has a norm behind its last layer.
        only_size: Height and width of the only images that it takes; None if it takes any multiple
            of the patch.
    """
    architecture: str
    record: str
    embed_dim: int
    patch_size: int
    depth: int
    img_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    names_normalization: bool
    has_norm: bool
    only_size: tuple[int, int] | None = None

    def check_size(self, height: int, width: int) -> None:
        """Refuses images of a size that the network does not take.

        Raises:
            InputError: Naming the size, and what is expected.
        """
        if self.only_size not in (None, (height, width)):
            raise InputError(
                f'images of {height}x{width} pixels: {self.architecture} takes '
                f'{self.only_size[0]}x{self.only_size[1]} alone, since its positions are of that '
                'grid: set the crop_size of the pipeline and of test_cfg to it, with '
                "test_cfg.mode='slide', or model.backbone.overrides=dict(img_size=...)")
        if height % self.patch_size or width % self.patch_size:
            raise InputError(
                f'images of {height}x{width} pixels: expected multiples of the '
                f'{self.patch_size}-pixel patch of {self.architecture}; resize them '
                f'(ResizeToMultiple, size_divisor={self.patch_size}) or pad them')


class UpstreamViT(nn.Module):
    """A network of another library as it is, from which feature maps are read.

    Attributes:
        vit: The library's own network, whose parameter names stay.
        facts: What is known of it.
    """
    vit: nn.Module
    facts: NetworkFacts
    _buffers_dtype: torch.dtype | None = None

    def forward(self, images: Tensor, layers: Sequence[int], norm: bool = False) -> list[Tensor]:
        """Computes the patch tokens behind some layers.

        Args:
            images: (B, 3, H, W), normalised as the network expects.
            layers: Indices of the layers, ascending.
            norm: Whether each result goes through the norm behind the last layer.

        Returns:
            One map (B, D, h, w) for each layer, without class and register tokens.
        """
        raise NotImplementedError

    def find(self, names: Collection[str]) -> tuple[dict[str, Place], list[str]]:
        """Finds the network's tensors among the names of a file.

        Returns:
            The place of each tensor in the file, by its name in :attr:`vit`, and the names of
            tensors that no feature map needs. Other names of the file are in neither.
        """
        raise NotImplementedError

    def _cast(self, images: Tensor) -> Tensor:
        """Casts images, and buffers that are computed with parameters, to the dtype of these.

        Casts may replace the parameters, so that their dtype is known in the forward pass alone.
        """
        dtype = next(self.vit.parameters()).dtype
        if dtype != self._buffers_dtype:
            self._cast_buffers(dtype)
        return images.to(dtype)

    def _cast_buffers(self, dtype: torch.dtype) -> None:
        self._buffers_dtype = dtype
        for module in self.vit.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.is_floating_point() and buffer.dtype != dtype and not any(
                        word in f'{type(module).__name__} {name}'.lower() for word in TABLES):
                    setattr(module, name, buffer.to(dtype))


@contextmanager
def building(dtype: torch.dtype, on_meta: bool) -> Iterator[None]:
    """Builds parameters in a dtype, frozen, and on the meta device where they cost no memory.

    Buffers, such as tables of positions, are computed in their own dtype and on the CPU, since no
    file brings them.

    Args:
        dtype: Dtype of the parameters.
        on_meta: Whether parameters are without values.
    """
    def convert(module: nn.Module, name: str, parameter: nn.Parameter | None) -> object:
        if parameter is None or not parameter.is_floating_point():
            return None
        values = (torch.empty_like(parameter, dtype=dtype, device='meta') if on_meta
                  else parameter.detach().to(dtype))
        return nn.Parameter(values, requires_grad=False)

    handle = register_module_parameter_registration_hook(convert)
    try:
        with torch.device('cpu'):
            yield
    finally:
        handle.remove()


def is_unneeded(name: str, prefixes: Collection[str]) -> bool:
    """Returns whether a name of a file is of a part that no feature map needs."""
    return name.partition('.')[0] in prefixes


def same_names(names: Collection[str], unneeded: Collection[str]
               ) -> tuple[dict[str, Place], list[str]]:
    """Returns places of tensors that have the same names in the file: see ``find``."""
    left = sorted(name for name in names if is_unneeded(name, unneeded))
    return {name: (name, 0, 1) for name in set(names).difference(left)}, left


def as_triple(values: Any) -> tuple[float, ...] | None:
    """Returns three numbers of a file, one for each channel; None if they are not that."""
    if not isinstance(values, (list, tuple)) or len(values) != 3 or not all(
            isinstance(value, (int, float)) and isfinite(value) for value in values):
        return None
    return tuple(map(float, values))
