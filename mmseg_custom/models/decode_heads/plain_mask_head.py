"""A mask decoder of plain transformer blocks on the features of several layers of a backbone.

B batch, C channels, Q queries, N patches, D width, h w patch grid, K classes, H W pixels.
"""
import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from ...errors import InputError
from ...layers.plain_mask import (
    LateralProjection,
    MaskedBlock,
    MaskPredictor,
    attention_mask,
    pixel_scores,
)
from ...layers.rotary import patch_angles
from ...logs import MAIN
from ...losses.mask_matching import (
    MaskLossOptions,
    MaskTargets,
    Prediction,
    mask_losses,
    mask_targets,
)
from .backbone_blocks import BackboneBlocks, joined_width_of
from .decode_head import DecodeHead

POWER = 0.9  # of the annealing


class PlainMaskHead(DecodeHead):
    """Queries and patches in plain transformer blocks, which predict masks with their classes.

    Cavagnero et al., "Plain Mask Transformer", 2026, after Kerssies et al., "Your ViT is Secretly
    an Image Segmentation Model" (EoMT), 2025, and Cheng et al., "Masked-attention Mask
    Transformer", 2022. Features of several layers are projected to ``channels`` and summed, queries
    are put in front of them, and both pass the blocks. In training a prediction is read before each
    block as well, and queries attend to the patches of their mask alone: those of a block with the
    probability ``attn_mask_probs``, which goes from 1 to 0 in the course of the training, for one
    block after the other. Testing predicts once and never masks, for which a head is ready at the
    end of its training: scores of validations before that say less.

    With ``blocks='backbone'`` the queries join the tokens of the image before the last blocks of
    the backbone itself, which is tuned with them (EoMT): see :mod:`.backbone_blocks`.

    Training needs the libraries of the extra ``masks``. Pixels with the ignored label belong to no
    mask, and count as background of all: see :func:`...losses.mask_matching.mask_targets`.

    Args:
        in_channels: Width C of each layer's map, or of the only one.
        num_classes: K.
        channels: D.
        in_index: Positions of the maps among those of the backbone.
        input_transform: ``'multiple_select'`` for several maps, None for one.
        num_queries: Q: the most classes that an image may have in training.
        num_blocks: Number of blocks.
        num_heads: Number of attention heads of own blocks; must divide D into multiples of 4.
        mlp_ratio: Width of the MLP of an own block over D.
        num_upscalings: Number of times that masks have twice the resolution of the patches: 2 for
            masks at a stride of 4 pixels with patches of 16.
        class_weight: Weight of the cross-entropy of the classes.
        mask_weight: Weight of the binary cross-entropy of the masks.
        dice_weight: Weight of the Dice loss of the masks.
        no_object_weight: Weight of queries without a mask in the cross-entropy.
        num_points: Number of points of a mask at which it is compared.
        oversample_ratio: Number of points drawn for each that is chosen for its uncertainty.
        importance_sample_ratio: Share of the points that are chosen so.
        ignore_index: Label of pixels without a class.
        align_corners: Option of resizing scores to pixels.
        blocks: 'own', or 'backbone' for the last ``num_blocks`` that are read of the backbone,
            whose width is ``in_channels``. ``channels`` is then the width that predictions are
            computed in, and ``in_index`` and ``input_transform`` have no effect.
        matching: ``'bipartite'``, or ``'fixed'``: query k is compared with the mask of class k, and
            ``num_queries`` must be K. This is the ablation of MaskFormer (Cheng et al., "Per-Pixel
            Classification is Not All You Need", 2021), which learns faster from few images.
        masked_attention: Whether queries are masked in training. It costs a short training more
            than it helps.

    Raises:
        InputError: If attention heads do not divide ``channels``, fixed queries are not as many as
            classes, for another transform, or for other ``blocks``.

    Attributes:
        attn_mask_probs: (number of blocks), probability of masked attention in each block.
        gives_probabilities: Whether scores are averaged over views as they are.
    """
    gives_probabilities = True

    def __init__(self, in_channels: int | Sequence[int], num_classes: int, channels: int = 1024,
                 in_index: int | Sequence[int] = (0, 1, 2, 3),
                 input_transform: str | None = 'multiple_select', num_queries: int = 100,
                 num_blocks: int = 6, num_heads: int = 16, mlp_ratio: float = 4.0,
                 num_upscalings: int = 2, class_weight: float = 2.0, mask_weight: float = 5.0,
                 dice_weight: float = 5.0, no_object_weight: float = 0.1, num_points: int = 12544,
                 oversample_ratio: float = 3.0, importance_sample_ratio: float = 0.75,
                 ignore_index: int | None = 255, align_corners: bool = False,
                 blocks: str = 'own', matching: str = 'bipartite', masked_attention: bool = True):
        joined_width = joined_width_of(blocks, in_channels)
        if joined_width is not None:
            in_index, input_transform = -1, None
        if input_transform not in ('multiple_select', None):
            raise InputError(f'input_transform={input_transform!r}: expected '
                             "'multiple_select' for several feature maps, or None for one")
        if joined_width is None and channels % (4 * num_heads):
            raise InputError(f'channels={channels} and num_heads={num_heads}: '
                             'expected heads of a width that is a multiple of 4')
        if matching not in ('bipartite', 'fixed') or (
                matching == 'fixed' and num_queries != num_classes):
            raise InputError(f'matching={matching!r} and num_queries={num_queries}: '
                             f"expected 'bipartite', or 'fixed' with num_queries={num_classes}, "
                             'the number of classes')
        # out_channels spares the advice to use one channel for two classes.
        super().__init__(in_channels, channels, num_classes=num_classes, out_channels=num_classes,
                         dropout_ratio=0.0, in_index=in_index, input_transform=input_transform,
                         loss_decode=None, ignore_index=ignore_index, align_corners=align_corners,
                         init_cfg=None)
        del self.conv_seg  # which no mask needs
        self.loss_options = MaskLossOptions(
            num_classes, class_weight, mask_weight, dice_weight, no_object_weight, num_points,
            oversample_ratio, importance_sample_ratio, matching)
        self.queries = nn.Parameter(torch.randn(num_queries, joined_width or channels))
        self.blocks: BackboneBlocks | nn.ModuleList
        if joined_width is not None:
            self.blocks = BackboneBlocks(joined_width, channels, num_blocks)
        else:
            widths = [in_channels] if isinstance(in_channels, int) else in_channels
            self.head_dim = channels // num_heads
            self.laterals = nn.ModuleList(LateralProjection(each, channels) for each in widths)
            self.blocks = nn.ModuleList(MaskedBlock(channels, num_heads, mlp_ratio)
                                        for _ in range(num_blocks))
        self.predictor = MaskPredictor(channels, num_classes, num_upscalings)
        self.masked_attention = masked_attention
        self.register_buffer('attn_mask_probs', torch.full((num_blocks,), float(masked_attention)))
        self._has_told_unlabelled = False

    def anneal(self, progress: float) -> None:
        """Sets the probability of masked attention of each block, where there is any.

        Each block has its share of the training, in which its probability goes to 0.

        Args:
            progress: Share of the training that is done, 0..1.
        """
        if not self.masked_attention:
            return
        shares = len(self.blocks) + 2
        values = [(1 - min(max(progress * shares - 1 - i, 0), 1)) ** POWER
                  for i in range(len(self.blocks))]
        self.attn_mask_probs.copy_(torch.tensor(values), non_blocking=True)

    @property
    def equal_blocks(self) -> list[nn.Module]:
        """Blocks of its own that may be compiled; those of the backbone are with the others."""
        return [] if isinstance(self.blocks, BackboneBlocks) else list(self.blocks)

    def layers_to_cast(self) -> list[nn.Module]:
        """Returns the layers that may compute in bfloat16: all linear ones but the classifier.

        Masks are multiplied in float32, as are the losses.
        """
        return [module for module in self.modules() if isinstance(module, (nn.Linear, _ConvNd))
                and module is not self.predictor.class_head]

    def forward(self, inputs: list[Tensor],
                of_all_blocks: bool = False) -> Tensor | list[Prediction]:
        """Computes scores, or the predictions of the queries that losses are computed of.

        Args:
            inputs: Feature maps [(B, C_i, h, w)] of the backbone.
            of_all_blocks: Whether there is a prediction before each block, by which its queries
                are masked, as in training; else there is the one after the last.

        Returns:
            Scores (B, K, s*h, s*w), see :func:`...layers.plain_mask.pixel_scores`. With
            ``of_all_blocks``, the predictions: logits of masks (B, Q, s*h, s*w) and of classes
            (B, Q, K + 1).
        """
        predictions = self._predictions(inputs, of_all_blocks)
        return predictions if of_all_blocks else pixel_scores(*predictions[-1])

    def _predictions(self, inputs: list[Tensor], of_all_blocks: bool) -> list[Prediction]:
        """See :meth:`forward`."""
        tokens, grid, blocks = self._begin(inputs)
        found: list[Prediction] = []
        for block, probability in zip(blocks, self.attn_mask_probs):
            mask = None
            if of_all_blocks:
                found.append(self._read(tokens, grid))
                if self.masked_attention:
                    mask = attention_mask(found[-1][0], grid, probability)
            tokens = block(tokens, mask=mask)
        return [*found, self._read(tokens, grid)]

    def _begin(self, inputs: list[Tensor]) -> tuple[Tensor, tuple[int, int], list[Callable]]:
        """Returns the tokens before the first block, (h, w), and what runs each of the blocks."""
        if isinstance(self.blocks, BackboneBlocks):
            tokens, grid = self.blocks.tokens(inputs, self.queries)
            return tokens, grid, [partial(self.blocks.run, i) for i in range(len(self.blocks))]
        patches, grid = self._patches(inputs)
        angles = patch_angles(grid, self.head_dim, patches.device)
        tokens = torch.cat([self.queries.expand(patches.shape[0], -1, -1), patches], dim=1)
        return tokens, grid, [partial(block, angles=angles) for block in self.blocks]

    def _read(self, tokens: Tensor, grid: tuple[int, int]) -> Prediction:
        """Reads a prediction from the tokens before or after a block."""
        if isinstance(self.blocks, BackboneBlocks):
            tokens = self.blocks.read(tokens)
        return self.predictor(tokens, grid)

    def _patches(self, inputs: list[Tensor]) -> tuple[Tensor, tuple[int, int]]:
        """Feature maps [(B, C_i, h, w)] -> sum of their projections (B, N, D), and (h, w)."""
        maps = self._transform_inputs(inputs)
        maps = [maps] if torch.is_tensor(maps) else maps
        grids = [(x.shape[2], x.shape[3]) for x in maps]
        if any(grid != grids[0] for grid in grids):  # symbols of an export have no hash for a set
            sizes = sorted(set(grids))
            raise InputError(f'PlainMaskHead: feature maps of {len(sizes)} sizes, {sizes}: '
                             'expected one; set model.backbone.with_fpn=False')
        patches = torch.stack([lateral(x) for lateral, x in zip(self.laterals, maps)]).sum(0)
        return patches, grids[0]

    def forward_train(self, inputs: list[Tensor], img_metas: list[dict], gt_semantic_seg: Tensor,
                      train_cfg: dict | None) -> dict[str, Tensor]:
        """Computes the losses, summed over all predictions, and the accuracy of the last one.

        Args:
            inputs: Feature maps [(B, C_i, h, w)].
            img_metas: Metas of the images, which name their files.
            gt_semantic_seg: Labels (B, 1, H, W).
            train_cfg: Not used.

        Raises:
            InputError: If an image has more classes than there are queries.
        """
        labels = gt_semantic_seg.squeeze(1)
        targets = mask_targets(labels, self.num_classes, self.ignore_index)
        self._check(targets, img_metas)
        predictions = self(inputs, of_all_blocks=True)  # wrappers gather weights for calls alone
        losses = mask_losses(predictions, targets, self.loss_options, over_ranks=self.training)
        losses['acc_seg'] = self._accuracy(predictions[-1], labels)
        return losses

    @torch.no_grad()
    def _accuracy(self, prediction: Prediction, labels: Tensor) -> Tensor:
        """Computes the accuracy () in percent, at the pixels in the middle of those of the masks.

        That of all pixels would take a fifth of a step.
        """
        scores = pixel_scores(*prediction)
        size = scores.shape[2:]
        labels = F.interpolate(labels[:, None].float(), size, mode='nearest-exact').squeeze(1)
        counted = labels != (-1 if self.ignore_index is None else self.ignore_index)
        hits = (scores.argmax(1) == labels) & counted
        return 100 * hits.sum() / counted.sum().clamp(min=1)

    def _check(self, targets: MaskTargets, metas: list[dict]) -> None:
        """Refuses images with more classes than queries, and tells of the first without any."""
        for number, meta in zip(targets.counts, metas):
            if number > len(self.queries):
                raise InputError(
                    f'{meta.get("filename")}: {number} classes in a crop, but num_queries='
                    f'{len(self.queries)}: expected a query for each; set model.decode_head.'
                    f'num_queries={number} or more')
            if number == 0 and not self._has_told_unlabelled:
                self._has_told_unlabelled = True
                logging.getLogger(MAIN).info(
                    '%s: no pixel of this crop is labelled: its queries learn that there is no '
                    'object (further such crops are not told of)', meta.get('filename'))
