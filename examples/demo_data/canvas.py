"""What scenes are drawn on: a picture, its labels, and sprites that paint both.

Letters: `H W` pixels; colours are RGB floats in about 0..1.
"""
import numpy as np

from .classes import OTHER
from .textures import Noise


class Canvas:
    """A picture (H, W, 3) and its labels (H, W), lit from one side.

    Attributes:
        x (ndarray): pixel centres, (1, W).
        y (ndarray): pixel centres, (H, 1).
        light (float): where the light comes from: -1 left, 1 right.
    """

    def __init__(self, height, width, rng):
        self.height, self.width = height, width
        self.image = np.zeros((height, width, 3))
        self.labels = np.full((height, width), OTHER, np.uint8)
        self.x = np.arange(width)[None, :] + .5
        self.y = np.arange(height)[:, None] + .5
        self.noise = Noise(rng)
        self.light = float(rng.random() * 2 - 1)

    def fill(self, mask, colour, label):
        """Paints a region with hard edges.

        Args:
            mask (ndarray): the region, bool (H, W).
            colour (ndarray): (H, W, 3).
            label (int): the class of the region.
        """
        np.copyto(self.image, colour, where=mask[..., None])
        self.labels[mask] = label

    def shadow(self, cx, cy, rx, ry, strength):
        """Darkens a soft ellipse: where an object stands. The labels stay."""
        u = (self.x - cx + self.light * rx * .4) / rx
        v = (self.y - cy) / ry
        self.image *= 1 - strength * np.clip(1.2 - u * u - v * v, 0, 1)[..., None]

    def glow(self, cx, cy, radius, strength):
        """Brightens the surroundings of a lamp, warmer than white. The labels stay."""
        u, v = (self.x - cx) / radius, (self.y - cy) / radius
        halo = strength / (1 + 3 * (u * u + v * v))
        self.image += halo[..., None] * np.array([1., .86, .62])


class Sprite:
    """One object: parts are painted one over the other, then the outline gets its label."""

    def __init__(self, canvas, left, top, right, bottom):
        """Opens the window of the canvas that holds the object; edges in pixels."""
        x0, y0 = max(0, int(left) - 3), max(0, int(top) - 3)
        x1, y1 = min(canvas.width, int(right) + 4), min(canvas.height, int(bottom) + 4)
        rows, columns = slice(y0, max(y0, y1)), slice(x0, max(x0, x1))
        self.image, self.labels = canvas.image[rows, columns], canvas.labels[rows, columns]
        self.x, self.y = canvas.x[:, columns], canvas.y[rows]
        self.noise = canvas.noise
        self.outline = np.full(self.labels.shape, np.inf)
        u = (self.x - (left + right) / 2) / max(1, (right - left) / 2)
        v = (self.y - (top + bottom) / 2) / max(1, (bottom - top) / 2)
        self.shade = 1 + .3 * canvas.light * u - .13 * v

    def part(self, distance, colour, texture=1.0):
        """Paints one part.

        Args:
            distance (ndarray): signed distance to the part's edge in pixels, (h, w).
            colour (ndarray): RGB, (3,) or (h, w, 3).
            texture (ndarray | float): brightness, (h, w), times the side light.
        """
        cover = np.clip(.5 - distance, 0, 1)[..., None]
        self.image += cover * (colour * (self.shade * texture)[..., None] - self.image)
        np.minimum(self.outline, distance, out=self.outline)

    def close(self, label, rim=0.0):
        """Labels everything that was painted.

        Args:
            label (int): the object's class.
            rim (float): half the width in pixels of the unlabelled band around it; 0 for none.
        """
        self.labels[self.outline < 0] = label
        if rim:
            self.labels[np.abs(self.outline) < rim] = OTHER


def pick(rng, options):
    """One of a sequence."""
    return options[int(rng.integers(len(options)))]


def between(rng, low, high):
    """A float from low to high."""
    return low + (high - low) * float(rng.random())


def chance(rng, probability):
    """True that often."""
    return float(rng.random()) < probability
