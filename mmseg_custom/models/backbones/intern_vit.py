"""InternViT as a segmentation backbone: image -> tokens -> blocks -> feature maps.

B batch, H W pixels, h w patch grid, N = h*w patch tokens, D width. A class token stands in front of
the patch tokens, and is left out of the feature maps.
"""
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from ...checkpoint.adapter_loading import start_adapters, watch_state_dicts
from ...checkpoint.load import load_backbone
from ...checkpoint.provenance import set_weights_source, weights_source_of
from ...errors import refuse_unknown
from ...layers.block import Block
from ...layers.feature_pyramid import LEVELS, build_pyramid
from ...layers.lora import LoraOptions, add_lora
from ...layers.patch_embed import PatchEmbed
from ...layers.pos_embed import PosEmbedCache, resample_pos_embed
from ...layers.quantized_linear import quantize_linears
from ..tuning import FULL, PARTLY, Tuning, check_adapters
from .block_sequence import BlockSequence
from .checks import check_frozen_dtype, check_out_indices, check_sizes


class InternViT6B(BlockSequence):
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
        adapt: Adapters that are trained in the place of the weights, which are frozen:
            ``dict(type='lora', r=16, alpha=32, dropout=0.0, targets=['qkv', 'proj', 'fc1', 'fc2'],
            blocks='all', use_dora=False)``, with the defaults of
            :class:`...layers.lora.LoraOptions`. ``blocks`` is 'all' for those that are read, or a
            list of their numbers. Needs the library peft.
        train_last: Number of blocks, the last that are read, which are trained; everything before
            them is frozen. 0 goes with ``train_norms`` alone.
        train_norms: Whether the norms and layer scales of the blocks before ``train_last`` are
            trained, too.

    Attributes:
        tuning: What of the blocks is trained.

    Raises:
        InputError: For an unknown argument, options that contradict each other, sizes that do not
            fit, ``out_indices`` that do not exist, a pyramid without four feature maps, or a
            pretrained file that does not fit.
    """
    is_internvit = True
    _has_cls_token = True

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
                 frozen_dtype: str | None = None, adapt: Mapping | None = None,
                 train_last: int | None = None, train_norms: bool = False, **unknown):
        super().__init__()
        self._refuse(unknown)
        check_out_indices(out_indices, depth, with_fpn)
        flash = (list(use_flash_attn) if isinstance(use_flash_attn, Sequence)
                 else [bool(use_flash_attn)] * depth)
        check_sizes(embed_dim, num_heads, depth, img_size, patch_size, len(flash))
        self.tuning = Tuning.of(max(out_indices) + 1, freeze_vit, adapt, train_last, train_norms)
        check_frozen_dtype(frozen_dtype, self.tuning, max(out_indices) + 1)
        if layerscale_no_force_fp32 is not None:
            layerscale_force_fp32 = not layerscale_no_force_fp32
        self.embed_dim = self.num_features = embed_dim
        self.patch_size, self.img_size, self.pretrain_size = patch_size, img_size, pretrain_size
        self.out_indices = list(out_indices)
        self.with_cp, self.with_fpn, self.freeze_vit = with_cp, with_fpn, freeze_vit
        self.frozen_dtype = frozen_dtype
        self.frozen_record = dict(dtype=frozen_dtype) if frozen_dtype else None  # for checkpoints
        self.set_map_format()

        # A file brings all these parameters: on the meta device they cost nothing until it does.
        with default_dtype(torch.bfloat16), torch.device('meta') if pretrained else nullcontext():
            self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
            num_tokens = 1 + (img_size // patch_size) ** 2
            self.pos_embed = nn.Parameter(torch.empty(1, num_tokens, embed_dim))
            self.cls_token = (nn.Parameter(torch.empty(1, 1, embed_dim)) if self._has_cls_token
                              else None)
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
            if self.cls_token is not None:
                nn.init.trunc_normal_(self.cls_token, std=0.02)
            blocks = (
                Block(embed_dim, num_heads, mlp_ratio, qkv_bias, qk_normalization, norm_type,
                      init_values, layerscale_force_fp32,
                      drop_path=drop_path_rate * i / max(depth - 1, 1), use_flash_attn=flash[i])
                for i in range(depth))  # one by one, so that each is rounded before the next
            self.blocks = nn.ModuleList(
                quantize_linears(block, frozen_dtype)
                if frozen_dtype and not self.tuning.trains(i, 'mlp.fc1.weight') else block
                for i, block in enumerate(blocks))
        with default_dtype(torch.bfloat16):
            if with_fpn:
                for name, level in build_pyramid(embed_dim, with_final_norm).items():
                    self.add_module(name, level)
        self.positions = PosEmbedCache()
        self._trains_positions = self.tuning.kind == FULL or unfreeze_pos_embed

        if isinstance(pretrained, InternViT6B):
            self._share(pretrained)
        elif pretrained:
            load_backbone(self, pretrained)
        self._freeze()
        if self.tuning.lora is not None:
            self._add_adapters(self.tuning.lora)
        watch_state_dicts(self)
        if self.tuning.kind != FULL:
            self.train()

    def _refuse(self, unknown: Mapping) -> None:
        """Refuses arguments that the constructor does not have."""
        known = [name for name in inspect.signature(type(self)).parameters if name != 'unknown']
        refuse_unknown('model.backbone', unknown, known)

    def _freeze(self) -> None:
        """Freezes the parameters that are not trained."""
        for name, parameter in self.named_trunk_parameters():
            part, _, rest = name.partition('.')
            if part == 'pos_embed':
                parameter.requires_grad = bool(self._trains_positions)
            elif part == 'blocks':
                block, _, own = rest.partition('.')
                parameter.requires_grad = parameter.is_floating_point() and (
                    self.tuning.trains(int(block), own))
            else:
                parameter.requires_grad = self.tuning.kind == FULL

    def _add_adapters(self, options: LoraOptions) -> None:
        """Puts adapters into blocks, which have their weights."""
        check_adapters(self.blocks[0], options, self.frozen_dtype)
        for block in self.blocks:
            block.adds_as_frozen = True
        with default_dtype(torch.bfloat16):
            for i in self.tuning.blocks:
                add_lora(self.blocks[i], options)
        start_adapters(self, self.adapt_folder)

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
    def adapt_record(self) -> dict | None:
        """Plain values that checkpoints say their adapters are by; None without adapters."""
        return self.tuning.record

    @property
    def adapt_folder(self) -> str | None:
        """Folder of peft's that the adapters start from; None if they start at zero."""
        return self.tuning.adapt_folder

    def train(self, mode: bool = True) -> 'InternViT6B':
        """Sets the training mode; frozen parts stay in eval mode."""
        super().train(mode)
        # Positions that were trained since the last evaluation; casts and gathered shards are new
        # tensors each time, at addresses that may repeat.
        self.positions = PosEmbedCache()
        if self.tuning.kind != FULL:
            for name, child in self.named_children():
                if name not in self.beside_trunk:
                    child.eval()
            for block in self.blocks[self.first_trained:self._num_read]:
                block.train(mode)
        return self

    def forward(self, images: Tensor | Sequence[Tensor], before_pyramid: bool = False,
                before_trained: bool = False) -> list[Tensor]:
        """Computes the feature maps of a batch.

        Args:
            images: (B, in_chans, H, W), normalised; H and W multiples of ``patch_size``. Or the
                result of :meth:`frozen_features` for them, from which it goes on.
            before_pyramid: Whether the inputs of the pyramid are returned.
            before_trained: Whether what :meth:`frozen_features` returns is.

        Returns:
            One feature map (B, D, h, w) for each of ``out_indices``; with the pyramid, four at 4x,
            2x, 1x and 1/2 of that grid. Those of :meth:`set_map_format` are float32 unless it was
            called, and those before the pyramid always. Where blocks are deferred, the tokens
            that :meth:`defer_blocks` describes.

        Raises:
            ValueError: If a side is not a multiple of the patch.
        """
        if before_trained and isinstance(images, Tensor):
            return [x.contiguous().float() for x in self._frozen_part(images)]
        features = (self._trunk(images) if isinstance(images, Tensor)
                    else self._from_frozen_features(images))
        if self.num_deferred:
            return list(features)
        return self._for_heads(features, before_pyramid)

    @torch.no_grad()
    def frozen_features(self, images: Tensor) -> list[Tensor]:
        """Computes what depends on frozen weights alone.

        Args:
            images: (B, in_chans, H, W), as for :meth:`forward`.

        Returns:
            One float32 feature map (B, D, h, w), before the pyramid, for each of ``out_indices``
            before the first trained block. If there is one, also the tokens that it is given: the
            class token (B, D, 1, 1), and the others (B, D, h, w).
        """
        partly = self.tuning.kind in PARTLY
        return self(images, before_trained=partly, before_pyramid=not partly)

    def frozen_feature_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """Returns (D, h, w) of each of :meth:`frozen_features` for images of these pixels."""
        grid = (height // self.patch_size, width // self.patch_size)
        if self.tuning.kind not in PARTLY:
            return [(self.embed_dim, *grid)] * len(self.out_indices)
        maps = sum(index < self.first_trained for index in self.out_indices)
        return [*[(self.embed_dim, *grid)] * maps, (self.embed_dim, 1, 1), (self.embed_dim, *grid)]

    def _from_frozen_features(self, features: Sequence[Tensor]) -> Sequence[Tensor]:
        """Computes feature maps from the result of :meth:`frozen_features`."""
        if self.tuning.kind not in PARTLY:
            return self._cast(features)
        *maps, cls_token, patches = features
        found = self._trained_part(cls_token, patches)
        return found if self.num_deferred else [*self._cast(maps), *found]

    def _add_positions(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, D) -> (B, 1 + N, D): puts the class token in front and adds the positions."""
        # While it learns, its casts and gathered shards change at addresses that may repeat: the
        # cache could not tell.
        fresh = self.training and self._trains_positions
        positions = (resample_pos_embed if fresh else self.positions)(self.pos_embed, grid)
        positions = positions.to(tokens.dtype)
        if self.cls_token is None:  # The convolution's tokens are stored with the channels first.
            return (tokens + positions[:, 1:]).contiguous()
        cls_token = self.cls_token.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        return torch.cat([cls_token, tokens], dim=1) + positions

    def _embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, in_chans, H, W) -> tokens (B, 1 + N, D) and the patch grid (h, w)."""
        tokens, grid = self.patch_embed(images)  # (B, N, D)
        return self._add_positions(tokens, grid), grid


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Builds parameters in ``dtype`` from the start; a cast afterwards would hold both copies."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
