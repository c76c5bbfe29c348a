"""Procedural textures: brightness fields over any coordinates.

Letters: `H W` pixels. Coordinates `u v` are floats in texture units, of any shapes that broadcast
to (H, W). Only + - * /, floor and comparisons are used: IEEE arithmetic fixes their results to the
last bit, while `sin` or `exp` may differ between processors, and the demo set must not.
"""
import numpy as np

_SIDE = 64  # the lattice repeats after this many cells; a power of two, so that `&` wraps it


class Noise:
    """Smooth value noise over a random lattice that all textures of one image share."""

    def __init__(self, rng):
        """Draws the lattice.

        Args:
            rng (np.random.Generator): the image's own source of randomness.
        """
        self.table = rng.random((_SIDE, _SIDE)) * 2 - 1

    def __call__(self, u, v, octaves=1):
        """Sum of octaves, each twice as fine and half as strong: (H, W) in about -1..1."""
        total, weight = 0.0, 1.0
        for _ in range(octaves):
            total = total + weight * self._smooth(u, v)
            u, v, weight = u * 2 + 17.3, v * 2 + 5.7, weight / 2
        return total / (2 - 2 * weight)

    def cells(self, u, v):
        """One value in -1..1 for each integer cell: (H, W), constant inside a cell."""
        return self.table[_lattice(np.floor(v)), _lattice(np.floor(u))]

    def _smooth(self, u, v):
        u0, v0 = np.floor(u), np.floor(v)
        fu, fv = _ease(u - u0), _ease(v - v0)
        left, top = _lattice(u0), _lattice(v0)
        right, bottom = _lattice(u0 + 1), _lattice(v0 + 1)
        a = self.table[top, left]
        b = self.table[bottom, left]
        a = a + fu * (self.table[top, right] - a)
        b = b + fu * (self.table[bottom, right] - b)
        return a + fv * (b - a)


def _lattice(cell):
    return cell.astype(np.int64) & (_SIDE - 1)


def _ease(t):
    return t * t * (3 - 2 * t)


def fraction(t):
    """The part after the point, in 0..1, also for negative numbers."""
    return t - np.floor(t)


def wave(t):
    """A sine-like wave with period 1 in -1..1, made of parabolas."""
    s = 2 * fraction(t) - 1
    return 4 * s * (1 - np.abs(s))


def bricks(noise, u, v, joint=.12, shift=.5, contrast=.12):
    """Courses of bricks, planks or (shift 0) tiles: (H, W) brightness around 1.

    Args:
        noise (Noise): gives each brick its own tone.
        u, v (ndarray): coordinates; a brick is 1 x 1.
        joint (float): width of the joints, as a share of a brick.
        shift (float): how far each second course is moved, in bricks.
        contrast (float): strength of the bricks' own tones.
    """
    course = np.floor(v)
    u = u + shift * (course - 2 * np.floor(course / 2))
    in_joint = (fraction(u) < joint / 2) | (fraction(v) < joint)
    return np.where(in_joint, .74, 1 + contrast * noise.cells(u, v))
