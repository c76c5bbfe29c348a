"""InternViT with a ViT-Adapter: a frozen vision transformer that exchanges features with a CNN.

    image -> spatial prior -> priors at strides 8, 16, 32 --+-- injector ---> tokens -> blocks
    image -> patch embedding -> tokens at stride 16 --------+-- extractor --> priors
                                                            ... once for each stretch of blocks

B batch, H W pixels, h w patch grid, N = h*w tokens, M = 21/4 * N tokens of the prior, D width.
"""
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...errors import InputError
from ...layers.conv_ffn import join_levels, split_levels
from ...layers.deformable_attention import Grid
from ...layers.interaction import LEVELS, Extractor, Injector, init_interaction
from ...layers.norm import EPS, LayerNorm2d
from ...layers.resize import resize_bilinear
from ...layers.spatial_prior import SpatialPriorModule
from ..deformable_kernels import select_kernel
from .checks import ADAPTER_STRIDE, check_adapter
from .intern_vit import InternViT6B, default_dtype

SIDE = 2 * ADAPTER_STRIDE  # pixels of a cell on the last level


class InternViTAdapter(InternViT6B):
    """A frozen InternViT with the adapter of Chen et al. ("ViT-Adapter", ICLR 2023).

    The adapter is trained, and changes the tokens before each stretch of blocks, so that gradients
    pass the frozen blocks; ``with_cp`` bounds the memory that this takes. There is no class token.
    Patch and position embedding of a pretrained file are resampled to ``patch_size`` and
    ``img_size``, bicubically as in the original.

    Arguments that are not listed are those of :class:`.intern_vit.InternViT6B`. The transformer has
    layer scales, which ``init_values`` does not concern here, as in the original.

    Args:
        patch_size: Side of a patch in pixels: 16, the stride at which tokens and prior meet.
        init_values: Initial factor of what the injectors add to the tokens.
        out_indices: Levels of the adapter that become feature maps: [0, 1, 2, 3], with strides of
            4, 8, 16 and 32 pixels, or [1, 2, 3].
        freeze_vit: True; the transformer is frozen.
        with_fpn: False; the adapter makes the levels itself.
        with_cp: Whether blocks, injectors and extractors recompute their activations in training.
        conv_inplane: Channels of the spatial prior's stem.
        n_points: Points that an attention head reads on each level.
        deform_num_heads: Heads of the deformable attention.
        interaction_indexes: First and last block of each stretch, which cover all blocks.
        with_cffn: Whether extractors have a feed-forward network.
        cffn_ratio: Width of that network over D.
        deform_ratio: Width of the values of deformable attention over D.
        add_vit_feature: Whether the tokens after the last block are added to all levels.
        use_extra_extractor: Whether two more extractors follow the last stretch.
        use_final_norm: Whether each level ends with a layer norm over channels.

    Raises:
        InputError: For an unknown argument, options that contradict each other, stretches that do
            not cover the blocks, a pretrained file that does not fit, or, in ``forward``, an image
            with a side that is not a multiple of 32 pixels.
    """
    changes_tokens = True
    image_multiple = SIDE
    beside_trunk = ('level_embed', 'spm', 'interactions', 'up', 'norm1', 'norm2', 'norm3', 'norm4')
    _has_cls_token = False

    def __init__(self, in_chans: int = 3, patch_size: int = 16, img_size: int = 224,
                 pretrain_size: int = 224, qkv_bias: bool = False, drop_path_rate: float = 0.0,
                 embed_dim: int = 3200, num_heads: int = 25, mlp_ratio: float = 4,
                 init_values: float = 0.0, qk_normalization: bool = True, depth: int = 48,
                 use_flash_attn: bool | Sequence[bool] = True, with_cp: bool = True,
                 layerscale_force_fp32: bool = False, out_indices: Sequence[int] = (0, 1, 2, 3),
                 freeze_vit: bool = True, with_fpn: bool = False, norm_type: str = 'rms_norm',
                 conv_inplane: int = 64, n_points: int = 4, deform_num_heads: int = 25,
                 interaction_indexes: Sequence[Sequence[int]] | None = None,
                 with_cffn: bool = True, cffn_ratio: float = 0.25, deform_ratio: float = 0.5,
                 add_vit_feature: bool = True, use_extra_extractor: bool = True,
                 use_final_norm: bool = True, pretrained: str | None = None, **unknown: Any):
        self._refuse(unknown)
        check_adapter(depth, patch_size, embed_dim, out_indices, interaction_indexes,
                      deform_num_heads, deform_ratio, freeze_vit, with_fpn)
        super().__init__(
            in_chans=in_chans, patch_size=patch_size, img_size=img_size,
            pretrain_size=pretrain_size, qkv_bias=qkv_bias, drop_path_rate=drop_path_rate,
            embed_dim=embed_dim, num_heads=num_heads, mlp_ratio=mlp_ratio,
            qk_normalization=qk_normalization, depth=depth, use_flash_attn=use_flash_attn,
            with_cp=with_cp, layerscale_force_fp32=layerscale_force_fp32,
            out_indices=[depth - 1],  # of the blocks: only the last tokens are read as they are
            freeze_vit=True, norm_type=norm_type, pretrained=pretrained)
        self.stretches = [(each[0], each[-1] + 1) for each in interaction_indexes or ()]
        self.levels = list(out_indices)
        self.add_vit_feature, self.use_final_norm = add_vit_feature, use_final_norm
        attention = dict(num_heads=deform_num_heads, num_points=n_points, ratio=deform_ratio,
                         kernel=select_kernel())
        ffn = dict(ffn_ratio=cffn_ratio if with_cffn else None, drop_path=drop_path_rate)
        with default_dtype(torch.bfloat16):
            self.level_embed = nn.Parameter(torch.empty(LEVELS, embed_dim))
            self.spm = SpatialPriorModule(conv_inplane, embed_dim, in_chans, 0 in self.levels)
            self.interactions = nn.ModuleList(
                _interaction(embed_dim, init_values, attention, ffn,
                             2 if use_extra_extractor and stop == depth else 0)
                for _, stop in self.stretches)
            if 0 in self.levels:
                self.up = nn.ConvTranspose2d(embed_dim, embed_dim, kernel_size=2, stride=2)
            for level in self.levels if use_final_norm else ():
                self.add_module(f'norm{level + 1}', LayerNorm2d(embed_dim, eps=EPS))
        self._init_adapter()
        self.train()

    def _init_adapter(self) -> None:
        """Initialises the adapter, which no pretrained file holds."""
        nn.init.normal_(self.level_embed)
        for name in self.beside_trunk[1:]:
            if hasattr(self, name):
                getattr(self, name).apply(init_interaction)

    @property
    def weights_changes(self) -> dict[str, Any]:
        """What is changed in the weights of a file: see :mod:`mmseg_custom.checkpoint.changes`."""
        return dict(patch_size=self.patch_size, left_out=['cls_token'])

    @property
    def first_under_autograd(self) -> int:
        """Index of the first block that runs under autograd in training."""
        return 0

    def _trunk(self, images: Tensor) -> list[Tensor]:
        """(B, in_chans, H, W) -> a feature map (B, D, H/s, W/s) for each stride s of the levels."""
        check_sides(*images.shape[-2:])
        first, priors = self._prior_of(images)
        with torch.no_grad():
            tokens, grid = self._embed(images)
        tokens, priors = self._interact(tokens, priors, grid)
        maps = split_levels(priors, prior_grids(grid))
        if first is not None:
            maps = [self.up(maps[0].contiguous()) + first, *maps]
        if self.add_vit_feature:
            (last,) = split_levels(tokens, [grid])
            maps = [each + resize_bilinear(last, each.shape[-2:]) for each in maps]
        if self.use_final_norm:
            maps = [getattr(self, f'norm{level + 1}')(each)
                    for level, each in zip(self.levels, maps)]
        return maps

    def _prior_of(self, images: Tensor) -> tuple[Tensor | None, Tensor]:
        """(B, in_chans, H, W) -> the prior's map (B, D, H/4, W/4), if any, and its tokens."""
        *first, second, third, fourth = self.spm(images.to(self.spm.fc2.weight.dtype))
        embedded = [each + offset[:, None, None]
                    for each, offset in zip((second, third, fourth), self.level_embed)]
        return first[0] if first else None, join_levels(embedded)  # (B, M, D)

    def _interact(self, tokens: Tensor, priors: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Runs the blocks on tokens (B, N, D), which exchange features with priors (B, M, D)."""
        grids, levels = [grid], prior_grids(grid)
        for (start, stop), parts in zip(self.stretches, self.interactions):
            tokens = self._run(parts['injector'], tokens, priors, grids, levels)
            tokens, _ = self._run_blocks(tokens, start, stop, counted_from=0)
            more = parts['extra_extractors'] if 'extra_extractors' in parts else ()
            for extractor in (parts['extractor'], *more):
                priors = self._run(extractor, priors, tokens, levels, grids)
        return tokens, priors

    def _run(self, part: nn.Module, *inputs: Any) -> Tensor:
        """Runs an injector or extractor, whose activations are recomputed with ``with_cp``."""
        if self.with_cp and self.training and torch.is_grad_enabled():
            return checkpoint(part, *inputs, use_reentrant=False)
        return part(*inputs)


def _interaction(dim: int, init_values: float, attention: Mapping, ffn: Mapping,
                 extra_extractors: int) -> nn.ModuleDict:
    """Builds what stands around a stretch of blocks.

    It is a dict, because its parts are called one by one: each casts its weights by itself.
    """
    parts = dict(injector=Injector(dim, init_values, **attention),
                 extractor=Extractor(dim, **ffn, **attention))
    if extra_extractors:
        parts['extra_extractors'] = nn.ModuleList(
            Extractor(dim, **ffn, **attention) for _ in range(extra_extractors))
    return nn.ModuleDict(parts)


def prior_grids(grid: Grid) -> list[Grid]:
    """Returns the grids of the prior's levels, at strides 8, 16 and 32, by that of the tokens."""
    h, w = grid
    return [(2 * h, 2 * w), (h, w), (h // 2, w // 2)]


def check_sides(height: int, width: int) -> None:
    """Refuses images that the levels of the prior do not divide.

    Raises:
        InputError: Naming the sides, in pixels.
    """
    if height % SIDE or width % SIDE:
        raise InputError(f'image of {height}x{width} pixels: InternViTAdapter takes sides that are '
                         f'multiples of {SIDE} pixels; resize it (ResizeToMultiple, '
                         f'size_divisor={SIDE}) or pad it')
