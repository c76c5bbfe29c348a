"""Linear heads with the same settings, computed as one: one product and one call of the loss.

G heads, B images or windows, C channels, K classes, h w patch grid, H W pixels of the labels.

Batch norm sees the same input in all heads. Its statistics are therefore those of any of them; the
scales and shifts, which each head has its own of, go into the weights of its classifier:
W (s x + t) + b = (W s) x + (W t + b). What depends on the input alone is computed once.
"""
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ...models.decode_heads.fcn_head import FCNHead
from ...models.decode_heads.head_loss import head_losses, in_strips


class LinearHeads:
    """Several linear heads, with all of their parameters in one tensor.

    Args:
        heads: Heads for which :func:`is_linear` holds, with the same settings.
    """

    def __init__(self, heads: Sequence[FCNHead]):
        self.heads = list(heads)
        parameters = dict(heads[0].named_parameters())
        self._shapes = {name: p.shape for name, p in parameters.items()}
        self._sizes = [p.numel() for p in parameters.values()]

    def weights(self) -> Tensor:
        """Returns a copy of the parameters, one row a head (G, P)."""
        return torch.cat([p.detach().flatten() for head in self.heads
                          for p in head.parameters()]).view(len(self.heads), -1)

    def assign_gradients(self, gradients: Tensor) -> None:
        """Gives the heads' parameters their gradients, which are parts of one tensor (G, P)."""
        for head, own in zip(self.heads, gradients):
            for p, part in zip(head.parameters(), own.split(self._sizes)):
                p.grad = part.view(p.shape)

    def losses(self, weights: Tensor, maps: list[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the losses (G,) and accuracies (G,) in percent of a training batch.

        Args:
            weights: Result of :meth:`weights`; the losses are differentiable in them.
            maps: Feature maps (B, C, h, w) that a head reads.
            labels: (B, 1, H, W).
        """
        return head_losses(self.heads[0], self.logits(weights, maps), labels)

    def logits(self, weights: Tensor, maps: list[Tensor]) -> Tensor:
        """Computes the logits (G, B, K, h, w); the first head says whether this is training."""
        parts = {name: part.reshape(len(self.heads), *shape) for (name, shape), part in zip(
            self._shapes.items(), weights.split(self._sizes, dim=1))}
        classifier = parts['conv_seg.weight']  # (G, K, C, 1, 1)
        bias = parts['conv_seg.bias'][:, None]  # (G, 1, K)
        x, kept = self._inputs(maps)
        if 'norm.weight' in parts:
            shift = parts['norm.bias'][:, None]  # (G, 1, C)
            if kept is not None:
                shift = shift * kept  # (G, B, C)
            bias = bias + shift @ classifier.flatten(2).mT
            classifier = classifier * parts['norm.weight'][:, None, :, None, None]
        cells = F.conv2d(x, classifier.flatten(0, 1))  # (B, G*K, h, w)
        cells = cells.unflatten(1, (len(self.heads), -1)).transpose(0, 1)
        return (cells + bias[..., None, None]).contiguous()

    @torch.no_grad()
    def _inputs(self, maps: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Computes what all heads read; updates the running statistics of all in training.

        Returns:
            Normalized maps (B, C, h, w) and, where dropout is on, its factors (B, C), which are
            those of every head alone: each would draw them from the same state of the generator.
        """
        first = self.heads[0]
        x = first._transform_inputs(maps)
        if isinstance(first.norm, _BatchNorm):
            x = _without_affine(first.norm)(x)
            if first.training:
                self._share_statistics()
        if first.dropout is None or not first.training:
            return x, None
        kept = first.dropout(x.new_ones(*x.shape[:2], 1, 1))
        return x * kept, kept.flatten(1)

    def _share_statistics(self) -> None:
        """Copies the running statistics of the first head to the others."""
        for name, value in self.heads[0].norm.named_buffers():
            others = [head.norm.get_buffer(name) for head in self.heads[1:]]
            if others:
                torch._foreach_copy_(others, [value] * len(others))


def is_linear(head: nn.Module) -> bool:
    """Returns whether a head is a classifier of each cell, perhaps after a batch norm."""
    return (type(head) is FCNHead and head.num_convs == 0 and not head.concat_input
            and head.input_transform != 'multiple_select' and in_strips(head)
            and 'loss' in head.loss_decode.loss_name and _is_plain_float32(head))


def _is_plain_float32(head: nn.Module) -> bool:
    return all(p.dtype == torch.float32 and p.requires_grad for p in head.parameters())


def _without_affine(norm: _BatchNorm) -> _BatchNorm:
    """Returns a batch norm with the statistics of another, and without its scales and shifts."""
    plain = type(norm)(norm.num_features, norm.eps, norm.momentum, affine=False,
                       track_running_stats=norm.track_running_stats, device='meta')
    plain._buffers = norm._buffers
    return plain.train(norm.training)
