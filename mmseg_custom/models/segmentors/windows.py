"""From the logits of windows to the labels of an image, without the logits of every pixel.

mmseg enlarges the logits of each window to the window's pixels, averages windows where they
overlap, crops padding, and resizes the result to the original image: all of it linear, and one
axis after the other. So with the logits of all windows side by side in one matrix (R, C) a class,

    logits at the pixels of the output  =  rows (H, R) @ logits (R, C) @ columns (C, W)

where the two matrices hold everything: enlarging, overlap, crop, resize and flip. They are sparse:
a pixel depends on a handful of cells. Tiles of the output are computed from the cells that they
depend on, and become labels at once.

K classes, H W pixels of the output, R C rows and columns of cells, S P rows and pixels of a tile.
"""
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

# Pixels of a tile: on the CPU its logits stay in the cache, on a GPU there are few large products.
TILE_PIXELS = {'cpu': 4096, 'cuda': 2**18}
LEAST_ROWS = 12  # rows of pixels in a tile on the CPU, where cells are closer than that
SAFETY = 1e-5  # share of the largest logit: far above the rounding error of a sum of few products


@dataclass(frozen=True)
class Axis:
    """One axis of an image, cut into windows.

    Attributes:
        length: Pixels of the network's input.
        kept: Those pixels of it that are not padding.
        target: Pixels of the output.
        side: Pixels of a window.
        starts: First pixel of each window.
        flipped: Whether this axis of the network's input is reversed.
    """
    length: int
    kept: int
    target: int
    side: int
    starts: tuple[int, ...]
    flipped: bool = False

    def pitch(self, cells: int) -> float:
        """Returns the distance of two cells of a window in pixels of the output."""
        return self.target / self.kept * self.side / cells

    def matrix(self, cells: int, align_corners: bool) -> Tensor:
        """Returns the weights (target, windows * cells) of the cells of all windows in each pixel.

        Args:
            cells: Number of the head's cells in a window.
            align_corners: Option of both resizes, from cells to pixels and to the output.
        """
        window = _resized(torch.eye(cells), self.side, align_corners)
        merged = torch.zeros(len(self.starts), cells, self.length)
        count = torch.zeros(self.length)
        for i, start in enumerate(self.starts):
            merged[i, :, start:start + self.side] = window
            count[start:start + self.side] += 1
        merged = (merged / count).flatten(0, 1)[:, :self.kept]
        matrix = _resized(merged, self.target, align_corners).T
        return matrix.flip(0) if self.flipped else matrix


def window_starts(length: int, crop: int, stride: int) -> tuple[int, ...]:
    """Returns the first pixel of each window of an axis, as mmseg's ``slide_inference`` does.

    The last one is moved back to end with the image; an image shorter than the crop is one window.
    """
    count = max(length - crop + stride - 1, 0) // stride + 1
    return tuple(max(min(i * stride + crop, length) - crop, 0) for i in range(count))


def _resized(lines: Tensor, size: int, align_corners: bool) -> Tensor:
    """Resizes lines (n, length) with PyTorch's own interpolation and rounding."""
    return F.interpolate(lines[None], size, mode='linear', align_corners=align_corners)[0]


@dataclass(frozen=True)
class View:
    """One version of an image (a scale, a flip) with the logits of its windows.

    Attributes:
        logits: (K, R, C), the windows side by side.
        rows: (H, R), result of :meth:`Axis.matrix`; on the CPU.
        columns: (W, C), the same for columns; on the CPU.
        pitch: Distance of two rows of cells in pixels of the output.
    """
    logits: Tensor
    rows: Tensor
    columns: Tensor
    pitch: float


def labels_of(views: Sequence[View], threshold: float | None = None,
              are_probabilities: bool = False) -> Tensor:
    """Computes the labels (H, W) of an image from all its views: uint8, or int16 for many classes.

    One view: the class of the largest logit. Several: the class of the largest mean probability.

    Args:
        views: Views of the same output size.
        threshold: Least probability of class 1 in a network with one output channel (K = 1); None
            in one with several.
        are_probabilities: Whether the logits are probabilities or sums of them, which are averaged
            over several views as they are.
    """
    classes = len(views[0].logits)
    height, width = len(views[0].rows), len(views[0].columns)
    dtype = torch.uint8 if classes <= 256 else torch.int16
    labels = torch.empty(height, width, dtype=dtype, device=views[0].logits.device)
    rows, columns = _tiles(views[0], labels.device.type)
    column_blocks = [[_used(view.columns[x], view) for x in columns] for view in views]
    on_cpu = labels.device.type == 'cpu'
    quick = on_cpu and all(bool(view.logits.isfinite().all()) for view in views)
    argmax = first_argmax_ if quick else partial(torch.argmax, dim=0)
    probability = _unchanged if are_probabilities else partial(torch.softmax, dim=0)

    def label_strip(y: slice) -> None:
        bands = []
        for view in views:
            weights, used = _used(view.rows[y], view)
            bands.append((weights, view.logits.index_select(1, used)))
        for i, x in enumerate(columns):
            tile = [(band, blocks[i]) for band, blocks in zip(bands, column_blocks)]
            if threshold is not None:
                found = _mean(tile, torch.sigmoid)[0] > threshold
            elif len(views) > 1:
                found = argmax(_mean(tile, probability))
            elif quick:
                found = _label_pruned(*tile[0])
            else:
                found = argmax(_logits(*tile[0]))
            labels[y, x] = found.view(y.stop - y.start, -1)

    _each(label_strip, rows, torch.get_num_threads() if on_cpu else 1)
    return labels


def _each(work: Callable[[slice], None], strips: list[slice], threads: int) -> None:
    """Works on strips, several at a time on the CPU, each in one thread.

    The steps of a tile are too short to split over threads, which would wait for each other after
    every step.
    """
    if threads == 1 or len(strips) == 1:
        for strip in strips:
            work(strip)
        return
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in pool.map(work, strips):
            pass
    torch.set_num_threads(threads)  # later threads would start with the setting of the last one


def _tiles(view: View, device: str) -> tuple[list[slice], list[slice]]:
    """Cuts the output into rows and columns of tiles.

    On the CPU a tile's rows lie between the centres of two rows of cells, where they depend on
    these two alone. On a GPU a tile is as wide as the image.
    """
    height, width = len(view.rows), len(view.columns)
    pixels = TILE_PIXELS.get(device, TILE_PIXELS['cuda'])
    if device == 'cpu':
        step = view.pitch * max(1, round(LEAST_ROWS / view.pitch))
        edges = [0, *(round(step * (i + 0.5)) for i in range(int(height / step))), height]
        across = max(1, round(pixels / step))
    else:
        step = max(1, pixels // width)
        edges = [*range(0, height, step), height]
        across = width
    rows = [slice(a, b) for a, b in zip(edges, edges[1:]) if a < b]
    return rows, [slice(x, min(x + across, width)) for x in range(0, width, across)]


def _used(weights: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """Returns weights and positions of the cells that a slice of the output depends on."""
    used = weights.any(0).nonzero().flatten()
    device = view.logits.device
    return _moved(weights[:, used], device), _moved(used, device)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor of the CPU to a device, from pinned memory: else the host waits for a GPU."""
    return (tensor.pin_memory() if device.type == 'cuda' else tensor).to(device, non_blocking=True)


def _logits(band: tuple[Tensor, Tensor], block: tuple[Tensor, Tensor],
            classes: Tensor | None = None) -> Tensor:
    """Computes the logits (K, S*P) of a tile, or of some of its classes."""
    (rows, cells), (columns, used) = band, block
    cells = cells.index_select(2, used)  # (K, r, c)
    if classes is not None:
        cells = cells.index_select(0, classes)
    across = (cells.flatten(0, 1) @ columns.T).unflatten(0, cells.shape[:2])  # (K, r, P)
    return torch.bmm(rows.expand(len(cells), -1, -1), across).flatten(1)


def _mean(tile: list, probability) -> Tensor:
    """Computes the mean probabilities (K, S*P) of a tile over the views."""
    total = probability(_logits(*tile[0]))
    for band, block in tile[1:]:
        total += probability(_logits(band, block))
    return total / len(tile)


def _unchanged(probabilities: Tensor) -> Tensor:
    return probabilities


def _label_pruned(band: tuple[Tensor, Tensor], block: tuple[Tensor, Tensor]) -> Tensor:
    """Computes the labels (S*P) of a tile from the classes that can win in it.

    A logit of the tile is a mean of those of the cells that it depends on. A class whose largest
    one there is below the smallest one of another class has no pixel.
    """
    cells = band[1].index_select(2, block[1]).flatten(1)  # (K, r*c)
    low, high = cells.amin(1), cells.amax(1)
    best = low.max()
    margin = SAFETY * torch.maximum(high.max().abs(), low.min().abs())
    classes = (high >= best - margin).nonzero().flatten()
    if len(classes) == 1:
        return classes.expand(len(band[0]) * len(block[0]))
    return classes[first_argmax_(_logits(band, block, classes))]


def first_argmax_(values: Tensor) -> Tensor:
    """Computes ``values.argmax(0)`` of (K, P) without NaN in a sixth of the time on the CPU.

    PyTorch's own goes from class to class by pixel. These four steps are vectorized; a comparison
    in place is, one with a boolean result is not. Overwrites the values.
    """
    rank = torch.arange(len(values), 0, -1, dtype=values.dtype)[:, None]
    best = values.eq_(values.amax(0)).mul_(rank).amax(0)  # the highest rank of the largest
    return len(values) - best.long()


def boxes(rows: Axis, columns: Axis) -> Iterator[tuple[int, int, slice, slice]]:
    """Yields the windows of an image: row and column number, and slices of their pixels."""
    for i, y in enumerate(rows.starts):
        for j, x in enumerate(columns.starts):
            yield i, j, slice(y, y + rows.side), slice(x, x + columns.side)
