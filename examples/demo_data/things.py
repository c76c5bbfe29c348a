"""What stands in a scene, and the objects of in- and outdoors: people, plants, clutter.

Every function that draws has the arguments (canvas, rng, cx, base, height): one object that stands
at (`cx`, `base`) and is `height` high, in pixels.
"""
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import classes as c
from .canvas import Sprite, between, chance, pick
from .colours import BROWNS, GREYS, PALES, SKIN, VIVID, class_colour, pick_colour
from .shapes import box, circle, convex, ellipse, limb


class Thing(NamedTuple):
    """One object before it is drawn; the scene decides what its units are.

    Attributes:
        draw: Function that draws it.
        across: Horizontal position, as a share of the width.
        near: Nearness to the viewer; near objects hide far ones.
        tall: Height.
    """
    draw: Callable
    across: float
    near: float
    tall: float


def several(rng, draw, counts, across, near, tall):
    """A list of things of one kind.

    Args:
        rng (np.random.Generator): the image's.
        draw (Callable): the function that draws one.
        counts (tuple[int, ...]): how many, each entry as likely as the others.
        across, near, tall (tuple[float, float]): the ranges of :class:`Thing`'s attributes.
    """
    return [Thing(draw, between(rng, *across), between(rng, *near), between(rng, *tall))
            for _ in range(pick(rng, counts))]


def person(canvas, rng, cx, base, height):
    """A standing or walking person."""
    s = height
    canvas.shadow(cx, base, s * .26, s * .05 + 1, .35)
    sprite = Sprite(canvas, cx - s * .3, base - s, cx + s * .3, base)
    x, y = sprite.x, sprite.y
    trousers, shirt = (pick_colour(rng, VIVID, GREYS, BROWNS, PALES) for _ in range(2))
    skin, hair = pick_colour(rng, SKIN, jitter=.03), pick_colour(rng, BROWNS, GREYS) * .6
    stride, swing = s * between(rng, .03, .11), s * between(rng, .13, .22)
    hips = (cx, base - s * .46)
    for side in (-1, 1):
        sprite.part(limb(x, y, hips, (cx + side * stride, base - s * .05), s * .066), trousers)
        shoulder = (cx + side * s * .12, base - s * .76)
        hand = (cx + side * swing, base - s * .46)
        sprite.part(limb(x, y, shoulder, hand, s * .044), shirt * .9)
        sprite.part(circle(x, y, *hand, s * .036), skin)
    if chance(rng, .3):  # a skirt or a long coat
        sprite.part(convex(x, y, [(cx - s * .09, base - s * .6), (cx + s * .09, base - s * .6),
                                  (cx + s * .16, base - s * .26), (cx - s * .16, base - s * .26)]),
                    shirt)
    sprite.part(box(x, y, cx - s * .135, base - s * .82, cx + s * .135, base - s * .42, s * .06),
                shirt, 1 + .12 * sprite.noise(x / s * 9, y / s * 9))
    sprite.part(ellipse(x, y, cx, base - s * .935, s * .072, s * .078), hair)
    sprite.part(ellipse(x, y, cx + s * .01, base - s * .905, s * .058, s * .066), skin)
    sprite.close(c.PERSON, rim=.8 if chance(rng, .4) else 0)


def shrub(canvas, rng, cx, base, height):
    """A low plant that grows from the ground."""
    _leaves(canvas, rng, cx, base, height, pot=False)


def house_plant(canvas, rng, cx, base, height):
    """A plant in a pot."""
    _leaves(canvas, rng, cx, base, height, pot=True)


def _leaves(canvas, rng, cx, base, height, pot):
    """A fan of leaves with gaps; they start at the rim of the pot, or near the ground."""
    s = height
    canvas.shadow(cx, base, s * .4, s * .08 + 1, .35)
    sprite = Sprite(canvas, cx - s * .62, base - s * 1.05, cx + s * .62, base)
    x, y = sprite.x, sprite.y
    green = class_colour(rng, c.PLANT)
    root = base - s * (.30 if pot else .04)
    if pot:
        clay = pick_colour(rng, BROWNS, PALES, VIVID)
        sprite.part(convex(x, y, [(cx - s * .22, root), (cx + s * .22, root),
                                  (cx + s * .15, base), (cx - s * .15, base)]), clay)
        rim = box(x, y, cx - s * .25, root - s * .03, cx + s * .25, root + s * .04)
        sprite.part(rim, clay * .85)
    count = int(rng.integers(13, 20))
    for i in range(count):
        lean = (2 * (i * 7 % count + .5) / count - 1) * between(rng, .8, 1.1)
        reach = s * between(rng, .50, .72) * (1 if pot else 1.2) * (1 - .3 * abs(lean))
        bend = (cx + lean * s * .24, root - reach * .62)
        tip = (cx + lean * s * .52, root - reach * between(rng, .62, 1.0))
        tone = green * between(rng, .6, 1.3)
        sprite.part(limb(x, y, (cx + lean * s * .05, root), bend, s * .05), tone * .8)
        sprite.part(limb(x, y, bend, tip, s * .08), tone)
    sprite.close(c.PLANT, rim=.8 if chance(rng, .3) else 0)


def clutter(canvas, rng, cx, base, height):
    """Something small that has no class here: a box, a ball or a bin."""
    s = height
    canvas.shadow(cx, base, s * .8, s * .2 + 1, .4)
    sprite = Sprite(canvas, cx - s * .7, base - s, cx + s * .7, base)
    x, y = sprite.x, sprite.y
    colour = pick_colour(rng, VIVID, BROWNS, GREYS)
    kind = int(rng.integers(3))
    if kind == 0:
        sprite.part(box(x, y, cx - s * .6, base - s * .8, cx + s * .6, base), colour)
        sprite.part(box(x, y, cx - s * .6, base - s * .8, cx + s * .6, base - s * .6), colour * .8)
    elif kind == 1:
        sprite.part(circle(x, y, cx, base - s * .5, s * .5), colour,
                    1 + .3 * np.sign(sprite.noise(x / s * 3, y / s * 3)))
    else:
        sprite.part(box(x, y, cx - s * .35, base - s, cx + s * .35, base, s * .1), colour)
    sprite.close(c.OTHER)
