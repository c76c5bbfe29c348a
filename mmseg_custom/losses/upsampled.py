"""Cross-entropy of logits that are upsampled to the labels, without the upsampled logits.

A linear head gives 36x36 logits for a crop of 504x504: upsampled, 150 classes take 152 MB an image,
several times over for softmax and gradients. Here a strip of rows is upsampled, its losses and its
gradient are computed at once and brought back to the patch grid, and the strip is freed.
Bilinear upsampling is linear in rows and in columns, U = R L C^T, so the gradient of L is R^T G C.

B images, K classes, h w grid of the logits, H W pixels of the labels; N logit maps (images times
heads), s rows of the grid that a strip of r rows of pixels reads.
"""
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Floats of a strip: what the caches of a core hold, and what keeps a GPU busy for a launch. The CPU
# takes one logit map at a time, so that its result does not depend on the others, bit for bit.
STRIP_FLOATS = {'cpu': 2**20, 'cuda': 2**25}
PARTS = 10  # of the classes, among which the CPU finds the highest logit
EPS = torch.finfo(torch.float32).eps
_sized_for: ContextVar[str | None] = ContextVar('sized_for', default=None)


@contextmanager
def strips_sized_for(device_type: str) -> Iterator[None]:
    """Gives strips the size that they have on 'cpu' or 'cuda', to count its memory elsewhere."""
    token = _sized_for.set(device_type)
    try:
        yield
    finally:
        _sized_for.reset(token)


def upsampled_cross_entropy(logits: Tensor, labels: Tensor, *, ignore_index: int = 255,
                            align_corners: bool = False, class_weight: Tensor | None = None,
                            avg_non_ignore: bool = False) -> tuple[Tensor, Tensor]:
    """Computes cross-entropy and accuracy of logits that are upsampled to the labels, in strips.

    The same numbers as with mmseg 0.30's ``CrossEntropyLoss`` and ``accuracy`` up to rounding, for
    any number of heads on the same images. Differentiable once, in the logits.

    Args:
        logits: (..., B, K, h, w), any number of heads in front. Computed with in float32.
        labels: (B, H, W), integers.
        ignore_index: Label without a loss.
        align_corners: Option of the bilinear upsampling.
        class_weight: (K,), factors of the losses.
        avg_non_ignore: Whether the mean is over the pixels that are not ignored, instead of all.

    Returns:
        Mean loss (...) and accuracy (...) of each head, the latter in percent of the pixels that
        are not ignored, and 0 where there are none.
    """
    heads, shape = logits.shape[:-4], logits.shape[-4:]
    loss, accuracy = _UpsampledCrossEntropy.apply(
        logits.float().reshape(-1, *shape), labels, ignore_index, align_corners, class_weight,
        avg_non_ignore)
    return loss.view(heads), accuracy.view(heads)


class _UpsampledCrossEntropy(torch.autograd.Function):
    """(heads, B, K, h, w), (B, H, W) -> losses and accuracies (heads,)."""

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor, ignore_index: int, align_corners: bool,
                class_weight: Tensor | None, avg_non_ignore: bool) -> tuple[Tensor, Tensor]:
        heads, images = logits.shape[:2]
        valid = labels != ignore_index
        targets = labels.where(valid, 0)
        weights = valid.float()
        if class_weight is not None:
            weights = weights * class_weight.float()[targets]
        counted = valid.sum() + EPS
        weights = weights / (counted if avg_non_ignore else labels.numel())
        gradient = (torch.zeros_like(logits, memory_format=torch.contiguous_format)
                    if ctx.needs_input_grad[0] else None)
        loss, hits = _strips(logits.flatten(0, 1), targets, weights, valid, align_corners,
                             None if gradient is None else gradient.flatten(0, 1))
        if gradient is not None:
            ctx.save_for_backward(gradient)
        accuracy = hits.view(heads, images).sum(1) * (100.0 / counted)
        ctx.mark_non_differentiable(accuracy)
        return loss.view(heads, images).sum(1).float(), accuracy.float()

    @staticmethod
    @once_differentiable
    def backward(ctx, of_loss: Tensor, _of_accuracy: Tensor) -> tuple:
        gradient, = ctx.saved_tensors
        return gradient * of_loss.view(-1, 1, 1, 1, 1), None, None, None, None, None


def _strips(logits: Tensor, targets: Tensor, weights: Tensor, valid: Tensor, align_corners: bool,
            gradient: Tensor | None) -> tuple[Tensor, Tensor]:
    """Computes all strips of all logit maps.

    Args:
        logits: (N, K, h, w); logit map n belongs to image n % B.
        targets: (B, H, W), ignored ones set to any class.
        weights: (B, H, W), factor of each pixel's loss.
        valid: (B, H, W), which pixels are not ignored.
        align_corners: Option of the upsampling.
        gradient: (N, K, h, w) zeros, which the gradient of the loss is added to.

    Returns:
        The sums (N,) of the weighted losses, and of the pixels that are right, in float64.
    """
    (count, classes, h, w), (images, height, width) = logits.shape, targets.shape
    to_rows = _interpolation(h, height, align_corners, logits)  # R (H, h)
    to_columns = _interpolation(w, width, align_corners, logits).T.contiguous()  # C^T (w, W)
    sums = logits.new_zeros(2, count, dtype=torch.float64)
    device_type = _sized_for.get() or logits.device.type
    budget = STRIP_FLOATS.get(device_type, STRIP_FLOATS['cuda'])
    read = _rows_read(h, height, align_corners)
    together = 1 if device_type == 'cpu' else count
    memory: Tensor | None = None  # of the first strip, for all: new memory costs the CPU a pass
    for group, rows in _plan(count, height, classes * width, budget, together):
        image = torch.arange(group.start, group.stop, device=logits.device) % images
        source = slice(read[rows.start][0], read[rows.stop - 1][1] + 1)
        strip = to_rows[rows, source]  # (r, s)
        # (n, K, s, w) -> (s, n, K, w) -> (s, n, K, W) -> (r, n, K, W)
        columns = logits[group, :, source].movedim(2, 0) @ to_columns
        if memory is None or len(memory) < len(strip) or memory.shape[1:] != columns.shape[1:]:
            memory = columns.new_empty(len(strip), *columns.shape[1:])
        upsampled = memory[:len(strip)]
        torch.mm(strip, columns.flatten(1), out=upsampled.flatten(1))
        loss, hits = _cross_entropy_(upsampled, *(
            part[image, rows].transpose(0, 1) for part in (targets, weights, valid)))
        sums[:, group] += torch.stack([loss, hits])
        if gradient is not None:
            # (r, n, K, W) -> (s, n, K, W) -> (s, n, K, w) -> (n, K, s, w)
            columns = (strip.T @ upsampled.flatten(1)).view(-1, *upsampled.shape[1:])
            gradient[group, :, source] += (columns @ to_columns.T).movedim(0, 2)
    return sums[0], sums[1]


def _cross_entropy_(logits: Tensor, targets: Tensor, weights: Tensor,
                    valid: Tensor) -> tuple[Tensor, Tensor]:
    """Computes loss and hits of a strip, summed over its pixels; logits become their gradient.

    Args:
        logits: (r, n, K, W), overwritten.
        targets: (r, n, W), classes.
        weights: (r, n, W), factor of each pixel's loss.
        valid: (r, n, W), which pixels count for the hits.

    Returns:
        Two (n,), float64.
    """
    index = targets.unsqueeze(2)  # (r, n, 1, W)
    highest = _highest(logits)
    of_target = logits.gather(2, index)
    hits = (of_target >= highest).squeeze(2) & valid
    total = logits.sub_(highest).exp_().sum(2, keepdim=True)
    loss = (total.log() + (highest - of_target)).squeeze(2) * weights
    logits.mul_(weights.unsqueeze(2) / total)
    _subtract_(logits, index, weights.unsqueeze(2))
    return loss.sum((0, 2), dtype=torch.float64), hits.sum((0, 2), dtype=torch.float64)


def _highest(logits: Tensor) -> Tensor:
    """Returns the highest logit of each pixel: (r, n, K, W) -> (r, n, 1, W).

    On the CPU ``amax`` along an axis that is not the last one takes twice as long as comparing
    parts of the classes first.
    """
    size = logits.shape[2] // PARTS
    if size < 2 or (_sized_for.get() or logits.device.type) != 'cpu':
        return logits.amax(2, keepdim=True)
    first, second, *others = logits.split(size, 2)
    highest = torch.maximum(first, second)
    for part in others:
        own = highest[:, :, :part.shape[2]]  # the last part has what is left
        torch.maximum(own, part, out=own)
    return highest.amax(2, keepdim=True)


def _subtract_(logits: Tensor, index: Tensor, values: Tensor) -> None:
    """Subtracts a value from one class of each pixel.

    On a GPU by comparing every class, one pass over memory: the deterministic form of
    ``scatter_add_`` there sorts, and waits for the GPU.

    Args:
        logits: (r, n, K, W), overwritten.
        index: (r, n, 1, W), class of each pixel.
        values: (r, n, 1, W).
    """
    if (_sized_for.get() or logits.device.type) == 'cpu':
        logits.scatter_add_(2, index, -values)
        return
    classes = torch.arange(logits.shape[2], device=logits.device).view(-1, 1)  # (K, 1)
    logits.addcmul_(index == classes, values, value=-1)


def _plan(count: int, height: int, row_floats: int, budget: int,
          together: int) -> Iterator[tuple[slice, slice]]:
    """Cuts N logit maps of H rows into parts of about ``budget`` floats, tall before wide."""
    rows = min(max(budget // row_floats, 1), height)
    rows = -(-height // -(-height // rows))  # equal strips
    group = min(max(budget // (row_floats * rows), 1), together)
    for first in range(0, count, group):
        for top in range(0, height, rows):
            yield (slice(first, min(first + group, count)), slice(top, min(top + rows, height)))


def _interpolation(size: int, to: int, align_corners: bool, like: Tensor) -> Tensor:
    """Returns torch's own linear interpolation as a matrix (to, size)."""
    unit = torch.eye(size, dtype=torch.float32, device=like.device)
    return F.interpolate(unit[None], to, mode='linear', align_corners=align_corners)[0].T


def _rows_read(size: int, to: int, align_corners: bool) -> list[tuple[int, int]]:
    """Returns the first and last row that each row of :func:`_interpolation` reads, or one more.

    From the formula rather than from the matrix, which a GPU would have to be asked for.
    """
    scale = (size - 1) / max(to - 1, 1) if align_corners else size / to
    centres = [i * scale if align_corners else max((i + 0.5) * scale - 0.5, 0) for i in range(to)]
    return [(max(int(x - 1e-3), 0), min(int(x + 1e-3) + 1, size - 1)) for x in centres]
