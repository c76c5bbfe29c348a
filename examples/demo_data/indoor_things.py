"""Furniture: doors, pictures, tables, chairs and lamps.

Floor-standing things stand at (`cx`, `base`) and are `height` high, in pixels.
"""
import numpy as np

from . import classes as c
from .canvas import Sprite, between, chance, pick
from .colours import AUTUMN, BLUES, BROWNS, GREYS, PALES, VIVID, class_colour, pick_colour
from .shapes import box, circle, convex, ellipse, limb


def _wood(sprite, along_x):
    """Grain along one axis: (h, w) brightness."""
    u, v = (sprite.x, sprite.y) if along_x else (sprite.y, sprite.x)
    return 1 + .16 * sprite.noise(u / 31 + 3, v / 2.3, octaves=2)


def door(canvas, rng, cx, base, height):
    """A panelled door in its frame, in the plane of the wall."""
    s = height
    half = s * between(rng, .22, .28)
    sprite = Sprite(canvas, cx - half * 1.2, base - s * 1.06, cx + half * 1.2, base)
    x, y = sprite.x, sprite.y
    leaf = class_colour(rng, c.DOOR)
    frame = pick_colour(rng, PALES, BROWNS) if chance(rng, .6) else leaf * .8
    sprite.part(box(x, y, cx - half * 1.16, base - s * 1.05, cx + half * 1.16, base), frame)
    sprite.part(box(x, y, cx - half, base - s, cx + half, base), leaf * .55)
    sprite.part(box(x, y, cx - half + 1, base - s + 1, cx + half - 1, base), leaf,
                _wood(sprite, False))
    rows = pick(rng, (((.08, .46), (.54, .94)), ((.07, .32), (.37, .62), (.67, .93)), ((.1, .9),)))
    columns = pick(rng, (((-.76, -.08), (.08, .76)), ((-.72, .72),)))
    for low, high in rows:
        for left, right in columns:
            panel = box(x, y, cx + half * left, base - s * high, cx + half * right, base - s * low)
            sprite.part(panel, leaf * .72)
            sprite.part(panel + 1.2, leaf * .95, _wood(sprite, False))
    knob = cx + half * .84 * pick(rng, (-1, 1))
    sprite.part(circle(x, y, knob, base - s * .47, max(1.3, s * .022)), np.array([.82, .72, .42]))
    sprite.close(c.DOOR)


def painting(canvas, rng, left, top, right, bottom):
    """A framed picture on the wall: a small landscape, or coloured shapes; edges in pixels."""
    sprite = Sprite(canvas, left, top, right, bottom)
    x, y = sprite.x, sprite.y
    size = min(right - left, bottom - top)
    border = max(1.5, size * between(rng, .06, .12))
    shadow = np.clip(.5 - box(x, y, left + 1.5, top + 2, right + 2, bottom + 2.5), 0, 1)
    sprite.image *= 1 - .28 * shadow[..., None]
    frame = class_colour(rng, c.PAINTING)
    sprite.part(box(x, y, left, top, right, bottom), frame)
    inside = box(x, y, left + border, top + border, right - border, bottom - border)
    if chance(rng, .5):
        skyline = top + (bottom - top) * (between(rng, .4, .7)
                                          + .25 * sprite.noise(x / size * 2, x * 0 + 3, octaves=2))
        sprite.part(inside, pick_colour(rng, BLUES, PALES), 1 + (bottom - y) / size * .3 - .2)
        sprite.part(np.maximum(inside, skyline - y), pick_colour(rng, BROWNS, GREYS, AUTUMN),
                    1 + .4 * sprite.noise(x / size * 9, y / size * 9, octaves=2))
    else:
        sprite.part(inside, pick_colour(rng, PALES, VIVID))
        for _ in range(int(rng.integers(3, 6))):
            blob = ellipse(x, y, between(rng, left, right), between(rng, top, bottom),
                           size * between(rng, .12, .4), size * between(rng, .12, .4))
            sprite.part(np.maximum(inside, blob), pick_colour(rng, VIVID))
    sprite.close(c.PAINTING, rim=.8 if chance(rng, .3) else 0)


def table(canvas, rng, cx, base, height, width):
    """A table with a cloth or bare: a top seen from above its edge, four legs or a solid front."""
    s, half = height, width / 2
    slant = half * between(rng, .76, .9)
    canvas.shadow(cx, base, half * 1.1, s * .22, .45)
    sprite = Sprite(canvas, cx - half, base - s * 1.6, cx + half, base)
    x, y = sprite.x, sprite.y
    wood = class_colour(rng, c.TABLE)
    edge, back = base - s * .92, base - s * between(rng, 1.3, 1.55)
    for side in (-1, 1):
        leg = cx + side * slant * .86
        sprite.part(box(x, y, leg - s * .05, edge, leg + s * .05, base - s * .22), wood * .6)
    if chance(rng, .6):  # a cloth or a closed front
        sprite.part(box(x, y, cx - half * .97, edge, cx + half * .97, base - s * .3), wood * .8,
                    1 + .2 * sprite.noise(x / 4, y / 60))
    for side in (-1, 1):
        leg = cx + side * half * .93
        sprite.part(box(x, y, leg - s * .06, edge, leg + s * .06, base), wood * .75)
    sprite.part(convex(x, y, [(cx - slant, back), (cx + slant, back), (cx + half, edge),
                              (cx - half, edge)]), wood * 1.1, _wood(sprite, True))
    sprite.part(box(x, y, cx - half, edge - .5, cx + half, edge + s * .12), wood * .8,
                _wood(sprite, True))
    sprite.close(c.TABLE, rim=.8 if chance(rng, .3) else 0)
    if chance(rng, .5):
        _crockery(canvas, rng, cx + half * between(rng, -.6, .6), (edge + back) / 2, s * .22)


def _crockery(canvas, rng, cx, base, height):
    """A bottle or a bowl on a table, without a class here."""
    sprite = Sprite(canvas, cx - height, base - height, cx + height, base)
    x, y = sprite.x, sprite.y
    colour = pick_colour(rng, VIVID, PALES)
    if chance(rng, .5):
        body = box(x, y, cx - height * .25, base - height * .7, cx + height * .25, base, 1)
        neck = box(x, y, cx - height * .1, base - height * 1.2, cx + height * .1, base)
        sprite.part(np.minimum(body, neck), colour)
    else:
        sprite.part(ellipse(x, y, cx, base - height * .2, height * .6, height * .3), colour)
    sprite.close(c.OTHER)


def chair(canvas, rng, cx, base, height):
    """A chair, half turned: back, seat, legs; upholstered or with slats."""
    s, turn = height, pick(rng, (-1, 1))
    half = s * between(rng, .25, .30)
    canvas.shadow(cx, base, half * 1.4, s * .1, .4)
    sprite = Sprite(canvas, cx - half * 1.6, base - s, cx + half * 1.6, base)
    x, y = sprite.x, sprite.y
    frame = pick_colour(rng, BROWNS, GREYS, PALES)
    cover = class_colour(rng, c.CHAIR)
    seat, shift = base - s * .46, turn * half * .35
    for px, py in ((-1, .1), (1, .1), (-.8, 0), (.8, 0)):
        near = 0 if py else 1
        foot = cx + px * half * .9 + (shift * .6 if near else -shift * .6)
        sprite.part(limb(x, y, (foot, seat), (foot, base - s * py), s * .04),
                    frame * (.9 if near else .6))
    back = [(cx - half - shift, base - s), (cx + half - shift, base - s),
            (cx + half - shift * .5, seat), (cx - half - shift * .5, seat)]
    slats = np.abs(sprite.noise.cells(x / s * 13, y * 0)) < .5 if chance(rng, .35) else None
    sprite.part(convex(x, y, back), cover, 1 if slats is None else np.where(slats, .55, 1.05))
    sprite.part(convex(x, y, [(cx - half * 1.05 - shift * .4, seat - s * .04),
                              (cx + half * 1.05 - shift * .4, seat - s * .04),
                              (cx + half * 1.12 + shift, seat + s * .10),
                              (cx - half * 1.12 + shift, seat + s * .10)]), cover * 1.12,
                1 + .1 * sprite.noise(x / 3, y / 3))
    sprite.close(c.CHAIR, rim=.8 if chance(rng, .3) else 0)


def floor_lamp(canvas, rng, cx, base, height):
    """A standing lamp: foot, pole and a shade that may be lit."""
    s = height
    canvas.shadow(cx, base, s * .14, s * .04 + 1, .4)
    sprite = Sprite(canvas, cx - s * .26, base - s, cx + s * .26, base)
    x, y = sprite.x, sprite.y
    metal = pick_colour(rng, GREYS, BROWNS) * .8
    sprite.part(limb(x, y, (cx, base), (cx, base - s * .7), max(1., s * .018)), metal)
    sprite.part(ellipse(x, y, cx, base - s * .01, s * .12, s * .03), metal)
    _shade(canvas, sprite, rng, cx, base - s * .98, base - s * .60, s * .26)
    sprite.close(c.LAMP)


def pendant_lamp(canvas, rng, cx, ceiling, drop, size):
    """A lamp on a cord from the ceiling; `drop` and `size` in pixels."""
    sprite = Sprite(canvas, cx - size, ceiling, cx + size, ceiling + drop + size)
    cord = limb(sprite.x, sprite.y, (cx, ceiling), (cx, ceiling + drop), .7)
    sprite.part(cord, np.array([.18, .17, .16]))
    _shade(canvas, sprite, rng, cx, ceiling + drop, ceiling + drop + size * .9, size * .75)
    sprite.close(c.LAMP)


def _shade(canvas, sprite, rng, cx, top, bottom, half):
    """A lamp shade: a cone or a ball, lit or not."""
    x, y = sprite.x, sprite.y
    colour = class_colour(rng, c.LAMP)
    lit = chance(rng, .75)
    if lit:
        canvas.glow(cx, (top + bottom) / 2, half * 3.2, .30)
        colour = .45 * colour + .55 * np.array([1., .93, .74])
    middle, radius = (top + bottom) / 2, (bottom - top) / 2
    if chance(rng, .7):
        narrow = half * between(rng, .45, .8)
        distance = convex(x, y, [(cx - narrow, top), (cx + narrow, top), (cx + half, bottom),
                                 (cx - half, bottom)])
    else:
        distance = ellipse(x, y, cx, middle, half * .9, radius)
    across = (x - cx) / half
    sprite.part(distance, colour, 1.08 - (.1 if lit else .3) * across * across + 0 * y)
