"""InternViT as a segmentation backbone: image -> tokens -> blocks -> feature maps.

B batch, H W pixels, h w patch grid, N = h*w patch tokens, D width. A class token stands in front of
the patch tokens, and is left out of the feature maps.
"""
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from mmcv.runner import BaseModule
from mmseg.models.builder import BACKBONES
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...checkpoint.load import load_backbone
from ...checkpoint.provenance import set_weights_source, weights_source_of
from ...errors import InputError, refuse_unknown
from ...layers.block import Block
from ...layers.feature_pyramid import LEVELS, build_pyramid
from ...layers.patch_embed import PatchEmbed
from ...layers.pos_embed import PosEmbedCache, resample_pos_embed
from ...layers.quantized_linear import DTYPES, quantize_linears


@BACKBONES.register_module()
class InternViT6B(BaseModule):
    """The vision transformer of InternVL (Chen et al., "InternVL", 2023), and its family.

    The defaults are InternViT-6B at 224 pixels. InternViT-300M is ``embed_dim=1024, num_heads=16,
    depth=24, qkv_bias=True, qk_normalization=False, norm_type='layer_norm'``.

    Parameters are built in bfloat16, never in float32 first, and computing follows the parameters:
    ``.float()`` gives a float32 network. The precision policy adds float32 master weights for
    training (:mod:`mmseg_custom.distributed.precision`).

    Args:
        in_chans: Channels of the image.
        patch_size: Side of a patch in pixels.
        img_size: Side in pixels of the square image that the position embedding is stored for; it
            is resampled to the grid of images of other sizes.
        pretrain_size: Side in pixels that the pretrained file was trained at. Kept for configs; the
            grid is read from the file itself.
        qkv_bias: Whether the q, k, v projection has a bias.
        drop_path_rate: Stochastic depth rate of the last block; it grows linearly from 0 in the
            first.
        embed_dim: Width D.
        num_heads: Attention heads.
        mlp_ratio: Width of the MLP over D.
        init_values: Initial layer scale; 0 or None for no layer scale.
        qk_normalization: Whether q and k are normalised, over all D channels.
        depth: Number of blocks.
        use_flash_attn: Whether blocks use the fastest attention kernel that is installed; a list
            says it block by block. Never an error: see
            :func:`...layers.attention.select_kernel`.
        with_cp: Whether activations are recomputed in training (activation checkpointing); see
            :meth:`set_checkpointing`.
        layerscale_force_fp32: Whether the layer scale is multiplied in float32.
        out_indices: Blocks (from 0, ascending) whose tokens become feature maps.
        freeze_vit: Whether everything but the pyramid is frozen. The frozen part stays in eval
            mode, runs without autograd and stops after the last block that is read.
        with_fpn: Whether the four feature maps become a pyramid of strides 3.5, 7, 14 and 28 pixels
            (for a patch of 14).
        with_final_norm: Whether each level of the pyramid ends with a layer norm over channels.
        norm_type: Type of all norms in the blocks, 'rms_norm' or 'layer_norm'.
        pretrained: File or folder with weights: see :func:`mmseg_custom.checkpoint.load_backbone`.
            Or a network of the same sizes, whose frozen parts are shared, not copied.
        layerscale_no_force_fp32: Opposite of ``layerscale_force_fp32``, a key of the configs of
            2024.
        unfreeze_pos_embed: Whether the position embedding of a frozen network is trained.
        frozen_dtype: 'int8' or 'fp8' for linear layers of frozen blocks with weights of 8 bits
            (:mod:`...layers.quantized_linear`); None keeps them as they are.

    Raises:
        InputError: For an unknown argument, sizes that do not fit each other, ``out_indices`` that
            do not exist, a pyramid without four feature maps, or a pretrained file that does not
            fit.
    """

    def __init__(self, in_chans: int = 3, patch_size: int = 14, img_size: int = 224,
                 pretrain_size: int = 224, qkv_bias: bool = False, drop_path_rate: float = 0.0,
                 embed_dim: int = 3200, num_heads: int = 25, mlp_ratio: float = 4,
                 init_values: float | None = 0.1, qk_normalization: bool = True, depth: int = 48,
                 use_flash_attn: bool | Sequence[bool] = True, with_cp: bool = True,
                 layerscale_force_fp32: bool = False,
                 out_indices: Sequence[int] = (7, 11, 15, 23), freeze_vit: bool = False,
                 with_fpn: bool = False, with_final_norm: bool = False,
                 pretrained: 'str | InternViT6B | None' = None, norm_type: str = 'rms_norm',
                 layerscale_no_force_fp32: bool | None = None, unfreeze_pos_embed: bool = False,
                 frozen_dtype: str | None = None, **unknown):
        super().__init__()
        known = [name for name in inspect.signature(type(self)).parameters if name != 'unknown']
        refuse_unknown('model.backbone', unknown, known)
        _check_out_indices(out_indices, depth, with_fpn)
        flash = (list(use_flash_attn) if isinstance(use_flash_attn, Sequence)
                 else [bool(use_flash_attn)] * depth)
        _check_sizes(embed_dim, num_heads, depth, img_size, patch_size, len(flash))
        _check_frozen_dtype(frozen_dtype, freeze_vit, unfreeze_pos_embed)
        if layerscale_no_force_fp32 is not None:
            layerscale_force_fp32 = not layerscale_no_force_fp32
        self.embed_dim = self.num_features = embed_dim
        self.patch_size, self.img_size, self.pretrain_size = patch_size, img_size, pretrain_size
        self.out_indices = list(out_indices)
        self.with_cp, self.with_fpn, self.freeze_vit = with_cp, with_fpn, freeze_vit
        self.frozen_dtype = frozen_dtype
        self.frozen_record = dict(dtype=frozen_dtype) if frozen_dtype else None  # for checkpoints
        self.set_checkpointing(every_kth=1)
        self.wrap_blocks(None)
        self.set_map_format()

        # A file brings all these parameters: on the meta device they cost nothing until it does.
        with _default_dtype(torch.bfloat16), torch.device('meta') if pretrained else nullcontext():
            self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
            num_tokens = 1 + (img_size // patch_size) ** 2
            self.pos_embed = nn.Parameter(torch.empty(1, num_tokens, embed_dim))
            self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
            nn.init.trunc_normal_(self.cls_token, std=0.02)
            blocks = (
                Block(embed_dim, num_heads, mlp_ratio, qkv_bias, qk_normalization, norm_type,
                      init_values, layerscale_force_fp32,
                      drop_path=drop_path_rate * i / max(depth - 1, 1), use_flash_attn=flash[i])
                for i in range(depth))  # one by one, so that each is rounded before the next
            self.blocks = nn.ModuleList(
                quantize_linears(block, frozen_dtype) if frozen_dtype else block
                for block in blocks)
        with _default_dtype(torch.bfloat16):
            if with_fpn:
                for name, level in build_pyramid(embed_dim, with_final_norm).items():
                    self.add_module(name, level)
        self.positions = PosEmbedCache()
        self._trains_positions = not freeze_vit or unfreeze_pos_embed

        if isinstance(pretrained, InternViT6B):
            self._share(pretrained)
        elif pretrained:
            load_backbone(self, pretrained)
        if freeze_vit:
            for name, parameter in self.named_trunk_parameters():
                parameter.requires_grad = name == 'pos_embed' and bool(unfreeze_pos_embed)
            self.train()

    def _share(self, other: 'InternViT6B') -> None:
        """Uses the modules and parameters of another network's trunk as this one's."""
        for name, child in other.named_children():
            if name not in LEVELS:
                setattr(self, name, child)
        self.cls_token, self.pos_embed = other.cls_token, other.pos_embed
        set_weights_source(self, weights_source_of(other))
        self.frozen_dtype, self.frozen_record = other.frozen_dtype, other.frozen_record

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters."""
        return self.patch_embed.proj.weight.dtype

    @property
    def pyramid(self) -> dict[str, nn.Module]:
        """Levels of the feature pyramid by name, in order of their strides; empty without one."""
        return {name: getattr(self, name) for name in LEVELS} if self.with_fpn else {}

    def named_trunk_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yields names and parameters before the pyramid: the part that ``freeze_vit`` freezes."""
        for name, parameter in self.named_parameters():
            if name.partition('.')[0] not in LEVELS:
                yield name, parameter

    def set_checkpointing(self, every_kth: int, first: int | None = None) -> None:
        """Sets which blocks recompute their activations in training, where ``with_cp`` is set.

        Args:
            every_kth: 1 for all blocks, 2 for every second one, and so on.
            first: Number of blocks, from the first, that ``every_kth`` concerns; those behind keep
                their activations. None: all blocks.
        """
        self._recomputed = range(0, sys.maxsize if first is None else first, every_kth)

    def set_map_format(self, dtype: torch.dtype = torch.float32,
                       memory_format: torch.memory_format = torch.contiguous_format) -> None:
        """Sets how :meth:`forward` returns feature maps.

        Args:
            dtype: Their dtype.
            memory_format: ``torch.channels_last`` for a head that computes so: tokens (B, N, D) are
                stored like that.
        """
        self._map_dtype, self._map_memory_format = dtype, memory_format

    def wrap_blocks(self, wrapper: Callable[[Callable, Tensor], list[Tensor]] | None) -> None:
        """Sets what runs the blocks where autograd is off; None for the blocks themselves.

        Args:
            wrapper: Function of a function that runs the blocks, and of the tokens (B, N, D) before
                the first one; returns the tokens of the blocks that are read.
        """
        self._wrapper = wrapper

    def init_weights(self) -> None:
        """Does nothing: the constructor initialised or loaded every parameter."""

    def train(self, mode: bool = True) -> 'InternViT6B':
        """Sets the training mode; frozen parts stay in eval mode."""
        super().train(mode)
        # Positions that were trained since the last evaluation; casts and gathered shards are new
        # tensors each time, at addresses that may repeat.
        self.positions = PosEmbedCache()
        if self.freeze_vit:
            for name, child in self.named_children():
                if name not in LEVELS:
                    child.eval()
        return self

    def forward(self, images: Tensor | Sequence[Tensor],
                before_pyramid: bool = False) -> list[Tensor]:
        """Computes the feature maps of a batch.

        Args:
            images: (B, in_chans, H, W), normalised; H and W multiples of ``patch_size``. Or the
                result of :meth:`frozen_features` for them, which only the pyramid is applied to.
            before_pyramid: Whether the inputs of the pyramid are returned.

        Returns:
            One feature map (B, D, h, w) for each of ``out_indices``; with the pyramid, four at 4x,
            2x, 1x and 1/2 of that grid. Those of :meth:`set_map_format` are float32 unless it was
            called, and those before the pyramid always.

        Raises:
            ValueError: If a side is not a multiple of the patch.
        """
        features = self._trunk(images) if isinstance(images, Tensor) else self._cast(images)
        if before_pyramid:
            return [x.contiguous().float() for x in features]
        if self.with_fpn:
            features = [level(x) for level, x in zip(self.pyramid.values(), features)]
        return [x.contiguous(memory_format=self._map_memory_format).to(self._map_dtype)
                for x in features]

    @torch.no_grad()
    def frozen_features(self, images: Tensor) -> list[Tensor]:
        """Computes the feature maps before the pyramid, which depend on frozen weights alone.

        Args:
            images: (B, in_chans, H, W), as for :meth:`forward`.

        Returns:
            One float32 feature map (B, D, h, w) for each of ``out_indices``.
        """
        return self(images, before_pyramid=True)

    def frozen_feature_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """Returns (D, h, w) of each of :meth:`frozen_features` for images of these pixels."""
        grid = (height // self.patch_size, width // self.patch_size)
        return [(self.embed_dim, *grid)] * len(self.out_indices)

    def _trunk(self, images: Tensor) -> list[Tensor]:
        """(B, in_chans, H, W) -> a feature map (B, D, h, w) for each of ``out_indices``."""
        frozen = self.freeze_vit and not self.pos_embed.requires_grad
        with torch.no_grad() if frozen else nullcontext():
            tokens, grid = self.patch_embed(images)  # (B, N, D)
            tokens = self._add_positions(tokens, grid)  # (B, 1 + N, D)
            if self._wrapper is None or torch.is_grad_enabled():
                outs = self._run_blocks(tokens)
            else:
                outs = self._wrapper(self._run_blocks, tokens)
            # (B, 1 + N, D) -> (B, D, h, w), without the class token
            return [out[:, 1:].transpose(1, 2).unflatten(2, grid) for out in outs]

    def _cast(self, features: Sequence[Tensor]) -> Sequence[Tensor]:
        """Casts given feature maps to the dtype that the pyramid's parameters are stored in."""
        return [x.to(self.up1[0].weight.dtype) for x in features] if self.with_fpn else features

    def _add_positions(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, D) -> (B, 1 + N, D): puts the class token in front and adds the positions."""
        cls_token = self.cls_token.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        # While it learns, its casts and gathered shards change at addresses that may repeat: the
        # cache could not tell.
        fresh = self.training and self._trains_positions
        positions = (resample_pos_embed if fresh else self.positions)(self.pos_embed, grid)
        positions = positions.to(tokens.dtype)
        return torch.cat([cls_token, tokens], dim=1) + positions

    def _run_blocks(self, tokens: Tensor) -> list[Tensor]:
        """Runs the blocks up to the last one that is read; returns the tokens of those read."""
        if not self.blocks:
            raise RuntimeError('the blocks of this backbone were dropped: it trains on a feature '
                               'cache; build it again for images')
        outs = []
        recompute = self.with_cp and self.training and torch.is_grad_enabled()
        for i, block in enumerate(self.blocks[:max(self.out_indices) + 1]):
            if recompute and i in self._recomputed:
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
            if i in self.out_indices:
                outs.append(tokens)
        return outs


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Builds parameters in ``dtype`` from the start; a cast afterwards would hold both copies."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _check_out_indices(out_indices: Sequence[int], depth: int, with_fpn: bool) -> None:
    if not out_indices or list(out_indices) != sorted(set(out_indices)) or not (
            0 <= out_indices[0] and out_indices[-1] < depth):
        raise InputError(f'out_indices {list(out_indices)}: expected ascending block numbers '
                         f'between 0 and depth - 1 = {depth - 1}')
    if with_fpn and len(out_indices) != 4:
        raise InputError(f'out_indices {list(out_indices)}: with_fpn=True makes a pyramid of '
                         f'exactly 4 feature maps, not {len(out_indices)}')


def _check_frozen_dtype(frozen_dtype: str | None, freeze_vit: bool,
                        unfreeze_pos_embed: bool) -> None:
    if frozen_dtype is None:
        return
    if frozen_dtype not in DTYPES:
        raise InputError(f'model.backbone.frozen_dtype={frozen_dtype!r}: expected one of '
                         f'{", ".join(map(repr, DTYPES))}, or None')
    trained = ('unfreeze_pos_embed=True' if unfreeze_pos_embed else '') if freeze_vit else (
        'freeze_vit=False')
    if trained:
        raise InputError(f'model.backbone.frozen_dtype={frozen_dtype!r} with {trained}: weights of '
                         '8 bits are not trained, and no gradient goes through them: set '
                         'model.backbone.freeze_vit=True and unfreeze_pos_embed=False, or leave '
                         'frozen_dtype out')


def _check_sizes(embed_dim: int, num_heads: int, depth: int, img_size: int, patch_size: int,
                 kernels: int) -> None:
    if embed_dim % num_heads:
        near = [n for n in range(1, embed_dim + 1) if embed_dim % n == 0]
        near = sorted(near, key=lambda n: abs(n - num_heads))[:2]
        raise InputError(f'num_heads {num_heads}: expected a divisor of embed_dim {embed_dim}, '
                         f'e.g. {" or ".join(map(str, sorted(near)))}')
    if img_size < patch_size:
        raise InputError(f'img_size {img_size}: expected patch_size {patch_size} or more pixels')
    if kernels != depth:
        raise InputError(f'use_flash_attn has {kernels} entries: expected one for each of the '
                         f'{depth} blocks, or True or False')
