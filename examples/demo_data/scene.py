"""One picture and its labels, from a seed and an index alone.

Letters: `H W` pixels. An image depends on (seed, split, index) and on nothing else, so a larger set
begins with the images of the smaller one.
"""
import numpy as np

from . import indoor, outdoor
from .canvas import Canvas, between, chance

# Neighbouring images show different places, so that any few of them show most classes.
LAYOUTS = (outdoor.street, indoor.dining_room, outdoor.lake, indoor.hall, outdoor.park,
           indoor.lounge)
SHORT_SIDE = (112, 168)  # pixels, both ends included
LONG_SIDE = 260  # pixels, at most


def draw_scene(seed, split, index):
    """Draws one scene.

    Args:
        seed (int): of the whole set, 0 or more.
        split (int): 0 for training, 1 for validation.
        index (int): the number of the image in its split, from 0.

    Returns:
        tuple[ndarray, ndarray]: RGB uint8 (H, W, 3), and labels uint8 (H, W): 0 for what has no
        class, else a number of `classes.DRAWN`.
    """
    rng = np.random.Generator(np.random.PCG64([seed, split, index]))
    height, width = _draw_size(rng)
    canvas = Canvas(height, width, rng)
    LAYOUTS[index % len(LAYOUTS)](canvas, rng)
    return _expose(canvas, rng), canvas.labels


def _draw_size(rng):
    """Height and width in pixels: 7 of 10 landscape."""
    short = int(rng.integers(SHORT_SIDE[0], SHORT_SIDE[1] + 1))
    long = min(int(short * between(rng, 1.05, 1.6)), LONG_SIDE)
    return (short, long) if chance(rng, .7) else (long, short)


def _expose(canvas, rng):
    """What the camera does: tint, exposure, darker corners, noise. Gives uint8 (H, W, 3)."""
    tint = 1 + (rng.random(3) * 2 - 1) * .08
    u, v = 2 * canvas.x / canvas.width - 1, 2 * canvas.y / canvas.height - 1
    corners = 1 - between(rng, 0, .14) * (u * u + v * v)
    image = canvas.image * (tint * between(rng, .80, 1.10)) * corners[..., None]
    strength = between(rng, 2, 6)  # grey levels
    shape = canvas.labels.shape
    noise = rng.random((*shape, 3)) + rng.random((*shape, 1)) * 2 - 1.5
    return np.clip(image * 255 + noise * strength, 0, 255).astype(np.uint8)
