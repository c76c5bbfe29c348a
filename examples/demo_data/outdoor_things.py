"""Objects of the open air: trees, cars, buildings, street lamps; see `things`."""
import numpy as np

from . import classes as c
from .canvas import Sprite, between, chance, pick
from .colours import BROWNS, GREYS, VIVID, class_colour, pick_colour
from .shapes import box, circle, convex, limb
from .textures import bricks, fraction


def tree(canvas, rng, cx, base, height):
    """A broad-leaved tree or a conifer."""
    s = height
    canvas.shadow(cx, base, s * .35, s * .06 + 1, .4)
    sprite = Sprite(canvas, cx - s * .55, base - s * 1.08, cx + s * .55, base)
    x, y = sprite.x, sprite.y
    bark = pick_colour(rng, BROWNS, GREYS) * .8
    green = class_colour(rng, c.TREE)
    leaves = 1 + .42 * sprite.noise(x / s * 14, y / s * 14, octaves=3)
    ragged = s * .07 * sprite.noise(x / s * 9 + 31, y / s * 9)
    sprite.part(convex(x, y, [(cx - s * .03, base - s * .6), (cx + s * .03, base - s * .6),
                              (cx + s * .05, base), (cx - s * .05, base)]), bark,
                1 + .25 * sprite.noise(x / s * 40, y / s * 6))
    if chance(rng, .3):
        width = s * between(rng, .22, .32)
        for low, high, spread in ((.14, .62, 1.), (.36, .82, .78), (.58, 1.04, .55)):
            cone = convex(x, y, [(cx, base - s * high), (cx + width * spread, base - s * low),
                                 (cx - width * spread, base - s * low)])
            sprite.part(cone + ragged * .8, green * .8, leaves)
    else:
        for _ in range(int(rng.integers(5, 9))):
            radius = s * between(rng, .17, .27)
            px, py = cx + s * between(rng, -.25, .25), base - s * between(rng, .5, .83)
            lit = 1 + .5 * ((px - x) * -canvas.light + (py - y)) / (2 * radius)
            sprite.part(circle(x, y, px, py, radius) + ragged, green,
                        leaves * np.clip(lit, .6, 1.4))
    sprite.close(c.TREE, rim=.9 if chance(rng, .5) else 0)


def car(canvas, rng, cx, base, height):
    """A car from the side, or from the front or back."""
    side = chance(rng, .7)
    half = height * (between(rng, 1.15, 1.45) if side else .68)
    canvas.shadow(cx, base, half * 1.1, height * .16, .6)
    sprite = Sprite(canvas, cx - half, base - height, cx + half, base)
    body = class_colour(rng, c.CAR)
    draw = _car_side if side else _car_end
    draw(sprite, rng, cx, base, height, half, body, np.array([.16, .20, .25]))
    sprite.close(c.CAR, rim=.8 if chance(rng, .4) else 0)


def _car_side(sprite, rng, cx, base, s, half, body, glass):
    x, y, facing = sprite.x, sprite.y, pick(rng, (-1, 1))

    def cabin(low, high, front, back):
        ends = sorted([(cx + facing * half * front[0], cx + facing * half * front[1]),
                       (cx - facing * half * back[0], cx - facing * half * back[1])])
        (left_low, left_high), (right_low, right_high) = ends
        return convex(x, y, [(left_high, base - s * high), (right_high, base - s * high),
                             (right_low, base - s * low), (left_low, base - s * low)])

    sprite.part(cabin(.55, 1.0, (.50, .26), (.78, .56)), body)
    sprite.part(cabin(.58, .92, (.42, .23), (.68, .52)), glass, 1 + .9 * (base - s * .6 - y) / s)
    post = cx - facing * half * .18
    sprite.part(box(x, y, post - s * .03, base - s * .95, post + s * .03, base - s * .5), body * .9)
    sprite.part(box(x, y, cx - half, base - s * .62, cx + half, base - s * .14, s * .16), body)
    sill = box(x, y, cx - half * .98, base - s * .30, cx + half * .98, base - s * .16)
    sprite.part(sill, body * .6)
    for offset in (-.58, .58):
        hub = (cx + half * offset, base - s * .19)
        sprite.part(circle(x, y, *hub, s * .2), np.array([.08, .08, .09]))
        sprite.part(circle(x, y, *hub, s * .1), np.array([.60, .60, .62]))


def _car_end(sprite, rng, cx, base, s, half, body, glass):
    x, y = sprite.x, sprite.y

    def slab(reach, low, high, radius=0.0):
        return box(x, y, cx - half * reach, base - s * high, cx + half * reach, base - s * low,
                   s * radius)

    for wheel in (cx - half * .8, cx + half * .8):
        sprite.part(box(x, y, wheel - s * .12, base - s * .3, wheel + s * .12, base, s * .05),
                    glass * .5)
    sprite.part(slab(.8, .3, 1., .16), body)
    sprite.part(slab(1., .12, .62, .12), body * .92)
    sprite.part(slab(.66, .62, .92, .08), glass, 1 + .5 * (base - s * .62 - y) / s)
    lights = np.array(pick(rng, ((.95, .93, .80), (.80, .12, .10))))
    for offset in (-.72, .72):
        sprite.part(circle(x, y, cx + half * offset, base - s * .45, s * .09), lights)
    sprite.part(slab(.3, .2, .34), np.array([.85, .85, .82]))


def building(canvas, rng, left, right, base, height):
    """A house front with rows of windows, a flat or a gabled roof; its edges in pixels."""
    top = base - height
    gable = height * between(rng, .16, .3) if chance(rng, .4) else 0
    sprite = Sprite(canvas, left - 2, top - gable, right + 2, base)
    x, y = sprite.x, sprite.y
    colour = class_colour(rng, c.BUILDING)
    width = right - left
    if chance(rng, .5):
        size = max(3., width / 12)
        facade = bricks(sprite.noise, x / size, y / size * 2, contrast=.1)
    else:
        facade = 1 + .1 * sprite.noise(x / 9, y / 23, octaves=2)
    if gable:
        middle = (left + right) / 2
        tiles = 1 + .18 * sprite.noise.cells(x / 5, y / 3)
        sprite.part(convex(x, y, [(middle, top - gable), (right + 2, top), (left - 2, top)]),
                    pick_colour(rng, BROWNS, GREYS, VIVID[:1]) * .8, tiles)
    sprite.part(box(x, y, left, top, right, base), colour, facade)
    if not gable:
        sprite.part(box(x, y, left - 1, top, right + 1, top + max(2, height * .04)), colour * .7)
    _windows(sprite, rng, left, right, top, base)
    sprite.close(c.BUILDING, rim=.8 if chance(rng, .3) else 0)


def _windows(sprite, rng, left, right, top, base):
    """Rows of windows, as one repeated box: lit, dark or mirroring the sky."""
    columns = max(1, int((right - left) / between(rng, 9, 18)))
    rows = max(1, int((base - top) / between(rng, 11, 22)))
    u = (sprite.x - left) / (right - left) * columns
    v = (sprite.y - top) / (base - top) * rows
    pane_w, pane_h = (right - left) / columns, (base - top) / rows
    distance = np.maximum((np.abs(fraction(u) - .5) - between(rng, .22, .34)) * pane_w,
                          (np.abs(fraction(v) - .5) - between(rng, .24, .36)) * pane_h)
    inside = box(sprite.x, sprite.y, left, top, right, base)
    glass = pick_colour(rng, ((.18, .21, .26), (.30, .36, .42), (.52, .62, .70)))
    sprite.part(np.maximum(distance, inside), glass, 1 + .5 * sprite.noise.cells(u, v))


def street_lamp(canvas, rng, cx, base, height):
    """A thin post without a class: what ADE20K leaves out of its 150."""
    reach = height * .18 * pick(rng, (-1, 1))
    sprite = Sprite(canvas, cx - height * .3, base - height, cx + height * .3, base)
    x, y = sprite.x, sprite.y
    top = base - height * .96
    colour = pick_colour(rng, GREYS) * .6
    sprite.part(limb(x, y, (cx, base), (cx, top), max(.8, height * .012)), colour)
    sprite.part(limb(x, y, (cx, top), (cx + reach, top), max(.8, height * .012)), colour)
    sprite.part(circle(x, y, cx + reach, top + 1, max(1.4, height * .03)), np.array([.9, .9, .8]))
    sprite.close(c.OTHER)
