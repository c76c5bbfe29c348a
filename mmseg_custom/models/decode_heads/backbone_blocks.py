"""The last blocks of a backbone as the blocks of a mask decoder (EoMT).

Kerssies et al., "Your ViT is Secretly an Image Segmentation Model", 2025. B batch, Q queries,
h w patch grid, N = h*w patches, D width of the backbone, C width of the predictions.
"""
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError
from ..backbones.block_sequence import BlockSequence
from ..tuning import FROZEN, LAST_BLOCKS, LORA

HEAD, BACKBONE = 'model.decode_head', 'model.backbone'


class BackboneBlocks(nn.Module):
    """Queries among the tokens of an image, in the last blocks of the backbone itself.

    The blocks stay the backbone's: their parameters have its names in checkpoints and in the groups
    of an optimizer, and it runs them, so that casts, sharding, adapters and activation
    checkpointing go with them as with its other blocks. Here are its own parameters alone: a norm
    and a projection from D to C, where these differ.

    Args:
        dim: D.
        channels: C.
        num_blocks: Number of blocks that the queries pass.
    """

    def __init__(self, dim: int, channels: int, num_blocks: int):
        super().__init__()
        self.dim, self.num_blocks = dim, num_blocks
        self.project = nn.Identity() if channels == dim else nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, channels))
        self._joined: tuple[BlockSequence, ...] = ()  # a tuple, so that it is no submodule

    def __len__(self) -> int:
        return self.num_blocks

    def join(self, backbone: nn.Module) -> None:
        """Takes over the last blocks of a backbone that are read.

        Args:
            backbone: Backbone, which returns the tokens before these blocks from now on.

        Raises:
            InputError: If it cannot leave them.
        """
        checked = _checked(backbone, self.dim, self.num_blocks)
        checked.defer_blocks(self.num_blocks)
        self._joined = (checked,)

    def tokens(self, inputs: Sequence[Tensor], queries: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Puts queries between the class token and the patches.

        Args:
            inputs: What the backbone returns: class token (B, D, 1, 1) and patches (B, D, h, w).
            queries: (Q, D).

        Returns:
            Tokens (B, 1 + Q + N, D) in the dtype of the patches, and (h, w).

        Raises:
            InputError: If there is no backbone that left its blocks.
        """
        if not self._joined:
            raise InputError(f"{HEAD}.blocks='backbone': the head has not joined a backbone: "
                             "expected it as the decode_head of model.type='InternViTSegmentor'")
        cls_token, patches = inputs
        own = queries.to(patches.dtype).expand(patches.shape[0], -1, -1)
        tokens = torch.cat([cls_token.flatten(2).transpose(1, 2), own,
                            patches.flatten(2).transpose(1, 2)], dim=1)
        return tokens, (patches.shape[2], patches.shape[3])

    def run(self, i: int, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Runs one of the blocks.

        Args:
            i: Number of the block, from 0.
            tokens: (B, 1 + Q + N, D).
            mask: (B, Q, N), whether a query attends to a patch; None for all to all. To queries and
                the class token all attend.

        Returns:
            (B, 1 + Q + N, D).
        """
        if mask is not None:
            in_front = 1 + mask.shape[1]
            mask = F.pad(mask, (in_front, 0, 1, 0), value=True).unsqueeze(1)
        backbone, = self._joined
        return backbone.run_deferred_block(backbone.first_deferred + i, tokens, mask)

    def read(self, tokens: Tensor) -> Tensor:
        """Tokens (B, 1 + Q + N, D) -> queries and patches (B, Q + N, C), float32."""
        return self.project(tokens[:, 1:].float())


def joined_width_of(blocks: str, in_channels: int | Sequence[int]) -> int | None:
    """Returns the width of the backbone whose blocks queries join; None for blocks of the head.

    Args:
        blocks: Option of the head, 'own' or 'backbone'.
        in_channels: Option of the head.

    Raises:
        InputError: If ``blocks`` is something else, or there is more than one width.
    """
    if blocks not in ('own', 'backbone'):
        raise InputError(f"{HEAD}.blocks={blocks!r}: expected 'own' or 'backbone'")
    if blocks == 'own':
        return None
    if not isinstance(in_channels, int):
        raise InputError(f"{HEAD}.in_channels={list(in_channels)} with blocks='backbone': expected "
                         "one width, the backbone's embed_dim")
    return in_channels


def _checked(backbone: nn.Module, dim: int, num_blocks: int) -> BlockSequence:
    """Returns a backbone whose last blocks queries can pass.

    Raises:
        InputError: If it is none.
    """
    joins = f"{HEAD}.blocks='backbone'"
    if not isinstance(backbone, BlockSequence):
        raise InputError(f'{joins} with a {type(backbone).__name__} as the backbone, whose blocks '
                         "a head cannot run: expected InternViT6B; set blocks='own'")
    if backbone.with_fpn:
        raise InputError(f'{joins} with {BACKBONE}.with_fpn=True: queries join tokens, not the '
                         'maps of a pyramid: set with_fpn=False')
    if dim != backbone.embed_dim:
        raise InputError(f"{HEAD}.in_channels={dim} with blocks='backbone': expected the "
                         f"backbone's width, embed_dim={backbone.embed_dim}")
    read = max(backbone.out_indices) + 1
    if not 1 <= num_blocks <= read:
        raise InputError(f"{HEAD}.num_blocks={num_blocks} with blocks='backbone': expected 1 to "
                         f'{read}, the number of blocks that are read (out_indices)')
    if backbone.first_trained > read - num_blocks:
        raise InputError(f'{joins} with num_blocks={num_blocks}: {_untrained(backbone)}, and the '
                         f'queries pass blocks from {read - num_blocks} on: train these, too, '
                         f"{_ways_out(backbone, read, num_blocks)} or set blocks='own'")
    return backbone


def _untrained(backbone: BlockSequence) -> str:
    if backbone.tuning.kind == FROZEN:
        return 'the backbone is frozen'
    return f'the first block that is trained is {backbone.first_trained}'


def _ways_out(backbone: BlockSequence, read: int, num_blocks: int) -> str:
    """Returns the settings with which the blocks that queries pass are trained."""
    fewer = f', set {HEAD}.num_blocks={read - backbone.first_trained}'
    if backbone.tuning.kind == LORA:
        return f'with {BACKBONE}.adapt.blocks from {read - num_blocks} on{fewer},'
    if backbone.tuning.kind == LAST_BLOCKS:
        fewer = fewer if backbone.first_trained < read else ''
        return f'with {BACKBONE}.train_last={num_blocks}{fewer},'
    return f'with {BACKBONE}.train_last={num_blocks} or adapt in the place of freeze_vit,'
