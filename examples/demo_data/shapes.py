"""Signed distances to simple outlines: negative inside, in pixels.

`x` is (1, W), `y` is (H, 1); each function returns (H, W). Soft edges come from the distance
(`Sprite.part`), unions are `np.minimum`, cuts are `np.maximum`.
"""
import numpy as np


def circle(x, y, cx, cy, radius):
    """A disc."""
    return np.sqrt((x - cx) * (x - cx) + (y - cy) * (y - cy)) - radius


def ellipse(x, y, cx, cy, rx, ry):
    """An upright ellipse; the distance is exact on the outline only."""
    u, v = (x - cx) / rx, (y - cy) / ry
    return (np.sqrt(u * u + v * v) - 1) * min(rx, ry)


def box(x, y, left, top, right, bottom, radius=0.0):
    """An upright rectangle, its corners rounded by `radius` pixels."""
    dx = np.abs(x - (left + right) / 2) - (right - left) / 2 + radius
    dy = np.abs(y - (top + bottom) / 2) - (bottom - top) / 2 + radius
    outside = np.sqrt(np.maximum(dx, 0) * np.maximum(dx, 0) + np.maximum(dy, 0) * np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0) - radius


def limb(x, y, start, end, radius):
    """A thick line with round ends, from `start` to `end`, both (x, y)."""
    (ax, ay), (bx, by) = start, end
    ex, ey = bx - ax, by - ay
    length2 = ex * ex + ey * ey + 1e-9
    along = np.clip(((x - ax) * ex + (y - ay) * ey) / length2, 0, 1)
    dx, dy = x - ax - along * ex, y - ay - along * ey
    return np.sqrt(dx * dx + dy * dy) - radius


def convex(x, y, points):
    """A convex polygon; `points` are (x, y), clockwise as seen in the image."""
    distance = None
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1]):
        ex, ey = bx - ax, by - ay
        norm = float(np.sqrt(ex * ex + ey * ey)) + 1e-9
        edge = ((x - ax) * ey - (y - ay) * ex) / norm
        distance = edge if distance is None else np.maximum(distance, edge)
    return distance
