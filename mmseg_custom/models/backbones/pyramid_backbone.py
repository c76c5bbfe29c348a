"""What backbones of this package share: a feature pyramid, and the form of feature maps.

B batch, D width, h w patch grid.
"""
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ...layers.feature_pyramid import LEVELS


class PyramidBackbone(nn.Module):
    """A network that gives feature maps, the trunk, and an optional feature pyramid behind it.

    Attributes:
        with_fpn: Whether there is a pyramid, with the levels ``up1`` to ``up4``.
        weights_advice: How weights are downloaded; None for those of an InternViT.
        beside_trunk: Names of the parts that are trained beside a frozen trunk.

    The other class attributes say what can be done with a backbone, before one is built: see
    :class:`..backbone_options.BackboneTraits`.
    """
    with_fpn = False
    weights_advice: str | None = None
    beside_trunk: tuple[str, ...] = LEVELS
    is_internvit = changes_tokens = renormalizes = False
    is_shardable = True
    image_multiple: int | None = None

    @property
    def pyramid(self) -> dict[str, nn.Module]:
        """Levels of the feature pyramid by name, in order of their strides; empty without one."""
        return {name: getattr(self, name) for name in LEVELS} if self.with_fpn else {}

    def named_trunk_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yields names and parameters of the part that can be frozen."""
        for name, parameter in self.named_parameters():
            if name.partition('.')[0] not in self.beside_trunk:
                yield name, parameter

    def set_map_format(self, dtype: torch.dtype = torch.float32,
                       memory_format: torch.memory_format = torch.contiguous_format) -> None:
        """Sets how the forward pass returns feature maps.

        Args:
            dtype: Their dtype.
            memory_format: ``torch.channels_last`` for a head that computes so: tokens (B, N, D) are
                stored like that.
        """
        self._map_dtype, self._map_memory_format = dtype, memory_format

    def init_weights(self) -> None:
        """Does nothing, where mmcv asks for it: every parameter is initialised or loaded."""

    def _for_heads(self, features: Sequence[Tensor], before_pyramid: bool = False) -> list[Tensor]:
        """Applies the pyramid to feature maps (B, D, h, w), and converts them for the heads.

        Args:
            features: Feature maps of the trunk.
            before_pyramid: Whether they are returned as caches hold them: in float32, without the
                pyramid.
        """
        if before_pyramid:
            return [x.contiguous().float() for x in features]
        if self.with_fpn:
            features = [level(x) for level, x in zip(self.pyramid.values(), features)]
        return [x.contiguous(memory_format=self._map_memory_format).to(self._map_dtype)
                for x in features]

    def _cast(self, features: Sequence[Tensor]) -> Sequence[Tensor]:
        """Casts given feature maps to the dtype that the pyramid's parameters are stored in."""
        return [x.to(self.up1[0].weight.dtype) for x in features] if self.with_fpn else features
