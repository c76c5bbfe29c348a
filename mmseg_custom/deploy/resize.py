"""Bilinear resizing of 8-bit images with OpenCV's bits, in whole numbers, without OpenCV.

A segmentor is tested on images that ``cv2.resize(..., INTER_LINEAR)`` resized. Its weights have 11
bits, its sums are shortened twice, and its result differs from that of Pillow or PyTorch by a level
here and there, which moves the border of a label. What it computes is a product of two matrices of
weights with two entries a row:

    level = (sum of b * (sum of a * value >> 4) >> 16) + 2 >> 2,    a and b of 0..2048

where a weighs the two columns, and b the two rows, beside a pixel. Images that are halved in both
directions are means of four pixels. OpenCV 4 and 5 do the same.

H W pixels.
"""
import numpy as np

ONE = np.float32(1 << 11)  # weight of a pixel that another one falls upon


def resize_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes an image.

    Args:
        image: (H, W, C), uint8.
        height: Height of the result in pixels.
        width: Width of the result in pixels.

    Returns:
        (height, width, C), uint8.
    """
    if image.shape[:2] == (height, width):
        return image
    if image.shape[:2] == (2 * height, 2 * width):
        pixels = image.astype(np.int32)
        pairs = pixels[::2] + pixels[1::2]
        return (pairs[:, ::2] + pairs[:, 1::2] + 2 >> 2).astype(np.uint8)
    (top, bottom), b = _neighbours(image.shape[0], height)
    (left, right), a = _neighbours(image.shape[1], width, weighs_edges=True)
    rows, places = np.unique(np.concatenate([top, bottom]), return_inverse=True)
    used = image[rows]
    across = (used[:, left] * a[0][:, None] + used[:, right] * a[1][:, None]) >> 4  # (r, width, C)
    down = [across[place] * weight[:, None, None] >> 16
            for place, weight in zip(places.reshape(2, height), b)]
    return (down[0] + down[1] + 2 >> 2).astype(np.uint8)


def _neighbours(length: int, target: int,
                weighs_edges: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Returns the two pixels beside each pixel of an axis, and their weights.

    Args:
        length: Number of pixels of the axis.
        target: Number of pixels that it gets.
        weighs_edges: Whether a pixel beyond an edge has the whole weight of the edge, as OpenCV has
            it for columns; else the weights are split, which is rounded otherwise.

    Returns:
        Pixels (2, target), and weights (2, target) of 0..2048 in int32.
    """
    centres = (np.arange(target) + 0.5) * (1 / (target / length)) - 0.5
    positions = centres.astype(np.float32)
    first = np.floor(positions).astype(np.int64)
    beyond = positions - first.astype(np.float32)
    if weighs_edges:
        beyond[(first < 0) | (first >= length - 1)] = 0
    weights = np.rint(np.stack([1 - beyond, beyond]) * ONE).astype(np.int32)
    return np.clip(np.stack([first, first + 1]), 0, length - 1), weights


def fitted_size(height: int, width: int, scale: tuple[float, float]) -> tuple[int, int]:
    """Returns the largest size (height, width) within a long and a short side, as mmcv rounds it.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        scale: Long and short side in pixels, in any order.
    """
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return int(height * factor + 0.5), int(width * factor + 0.5)


def covering_size(height: int, width: int, short: float) -> tuple[int, int]:
    """Returns the size (height, width) whose short side has a length, as mmseg rounds it.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        short: Length of the short side in pixels.
    """
    if height > width:
        return fitted_size(height, width, (short * height / width, short))
    return fitted_size(height, width, (short, short * width / height))
