"""Open-air scenes: a street, a lake between mountains, a park.

Things stand on the ground at scale. How near one is (`Thing.near`) is how much of the picture's
height a metre covers there, 0 on the horizon; how tall it is (`Thing.tall`), metres.
"""
import numpy as np

from . import classes as c
from .canvas import between, chance, pick
from .colours import BLUES, DUSK, PALES, class_colour, pick_colour
from .outdoor_things import building, car, street_lamp, tree
from .textures import fraction, wave
from .things import clutter, person, several, shrub


class Ground:
    """The horizon and the scale of an open-air scene."""

    def __init__(self, canvas, rng, low, high):
        self.horizon = canvas.height * between(rng, low, high)
        self.eye = between(rng, 1.7, 3.2)  # height of the camera, metres
        self.vanish = canvas.width * between(rng, .25, .75)
        below = np.maximum(canvas.y - self.horizon, .5)
        self.depth = canvas.height / below  # 1 / (how far below the horizon), (H, 1)
        self.across = (canvas.x - self.vanish) / below  # (H, W)
        self.clarity = np.clip(below / (canvas.height * .25), .15, 1)  # fine detail fades far away

    def line(self, metre):
        """The y of the ground where a metre covers `metre` pixels."""
        return self.horizon + metre * self.eye


def street(canvas, rng):
    """Houses along a road in perspective, with cars, people and trees."""
    ground = Ground(canvas, rng, .30, .48)
    _sky(canvas, rng, ground)
    if chance(rng, .6):
        _meadow(canvas, rng, ground)
    else:
        _paving(canvas, rng, ground)
    _road(canvas, rng, ground, between(rng, 2.2, 4.2))
    _houses(canvas, rng, ground, gap=.12)
    things = several(rng, car, (1, 2, 3), (.1, .9), (.12, .22), (1.5, 1.8))
    things += several(rng, person, (1, 2), (.05, .95), (.22, .36), (1.6, 1.9))
    things += several(rng, tree, (0, 1, 2), (-.05, .25), (.07, .15), (3.2, 5.5))
    things += several(rng, tree, (0, 1, 2), (.75, 1.05), (.07, .15), (3.2, 5.5))
    things += several(rng, street_lamp, (0, 1, 1), (.1, .9), (.10, .14), (4.5, 5.5))
    things += several(rng, clutter, (0, 0, 1), (.1, .9), (.18, .22), (.5, .7))
    _place(canvas, rng, ground, things)


def lake(canvas, rng):
    """Water in front of mountains, a meadow with trees, shrubs and people on the near shore."""
    ground = Ground(canvas, rng, .34, .56)
    _sky(canvas, rng, ground)
    _mountains(canvas, rng, ground)
    _water(canvas, rng, ground)
    shore = _shore(canvas, rng, ground, between(rng, .60, .82))
    things = several(rng, tree, (1, 2, 3), (-.05, 1.05), (.12, .22), (2.6, 4.2))
    things += several(rng, shrub, (1, 2), (0, 1), (.26, .40), (.9, 1.4))
    things += several(rng, person, (0, 1, 2), (.1, .9), (.24, .36), (1.6, 1.9))
    _place(canvas, rng, ground, things, shore)


def park(canvas, rng):
    """A meadow before a row of trees or houses, sometimes with a pond or a path; people, shrubs."""
    ground = Ground(canvas, rng, .26, .48)
    _sky(canvas, rng, ground)
    if chance(rng, .5):
        _mountains(canvas, rng, ground)
    _meadow(canvas, rng, ground)
    if chance(rng, .6):
        _houses(canvas, rng, ground, gap=.45)
    pond = chance(rng, .5)
    if pond:
        _pond(canvas, rng, ground)
    elif chance(rng, .6):
        _road(canvas, rng, ground, between(rng, .8, 1.5))
    things = several(rng, tree, (1, 2, 3), (-.05, 1.05), (.09, .17), (3.2, 5.))
    things += several(rng, person, (1, 2), (.08, .92), (.22, .36), (1.6, 1.9))
    things += several(rng, shrub, (1, 2), (0, 1), (.24, .38), (.9, 1.5))
    things += several(rng, car, (0,) if pond else (1,), (.15, .85), (.12, .20), (1.5, 1.8))
    _place(canvas, rng, ground, things)


def _place(canvas, rng, ground, things, shore=None):
    """Draws the things, from the farthest to the nearest; none stands above the `shore` line."""
    for thing in sorted(things, key=lambda thing: thing.near):
        cx, metre = thing.across * canvas.width, thing.near * canvas.height
        base = ground.line(metre)
        if shore is not None:
            column = min(max(int(cx), 0), canvas.width - 1)
            base = max(base, float(shore[0, column]) + 3)
        thing.draw(canvas, rng, cx, min(base, canvas.height * 1.04), thing.tall * metre)


def _sky(canvas, rng, ground):
    """The whole picture becomes sky: a gradient with clouds."""
    high = class_colour(rng, c.SKY)
    low = .5 * high + .5 * pick_colour(rng, PALES, DUSK, BLUES)
    t = np.clip(canvas.y / ground.horizon, 0, 1)[..., None]
    colour = high + t * t * (low - high)
    size = canvas.width * between(rng, .18, .4)
    clouds = canvas.noise(canvas.x / size, canvas.y / size * between(rng, 1.6, 3), octaves=4)
    cover = np.clip((clouds + between(rng, -.35, .25)) * 1.8, 0, .85)[..., None]
    colour = colour + cover * (np.array(pick(rng, PALES)) * 1.1 - colour)
    canvas.fill(np.ones(canvas.labels.shape, bool), colour, c.SKY)


def _mountains(canvas, rng, ground):
    """One to three ridges, the farther the paler."""
    ridges = int(rng.integers(1, 4))
    rock = class_colour(rng, c.MOUNTAIN)
    haze = canvas.image[max(0, int(ground.horizon) - 1)].copy()[None]
    snow = chance(rng, .4)
    for i in range(ridges):
        near = (i + 1) / ridges
        peak = canvas.height * between(rng, .22, .38) * (1.25 - .5 * near)
        x = canvas.x / canvas.width * between(rng, 2, 4) + 23.7 * i
        ridge = ground.horizon - peak * (.75 + .8 * canvas.noise(x, x * 0 + 9 * i, octaves=4))
        slope = canvas.noise(canvas.x / 11 + canvas.y / 17, canvas.y / 13 + 5 * i, octaves=3)
        colour = rock * (1 + .45 * slope[..., None] + .2 * canvas.light)
        if snow:
            cap = canvas.y < ridge + peak * (.3 + .25 * slope)
            white = np.array([.90, .92, .95]) * (1 + .15 * slope[..., None])
            colour = np.where(cap[..., None], white, colour)
        colour = haze + (.45 + .5 * near) * (colour - haze)
        canvas.fill((canvas.y > ridge) & (canvas.y < ground.horizon + 1), colour, c.MOUNTAIN)


def _meadow(canvas, rng, ground):
    below = np.broadcast_to(canvas.y > ground.horizon, canvas.labels.shape)
    canvas.fill(below, _grass(canvas, rng, ground), c.GRASS)


def _paving(canvas, rng, ground):
    """A paved square, which counts as road."""
    below = np.broadcast_to(canvas.y > ground.horizon, canvas.labels.shape)
    colour = class_colour(rng, c.ROAD) * 1.2
    slabs = canvas.noise.cells(ground.across * 4, ground.depth * 6) * ground.clarity
    canvas.fill(below, colour * (1 + .10 * slabs[..., None]), c.ROAD)


def _grass(canvas, rng, ground):
    colour = class_colour(rng, c.GRASS)
    patches = canvas.noise(ground.across * 2, ground.depth * 2, octaves=2)
    blades = canvas.noise(canvas.x / 1.7, canvas.y / 4.3) * ground.clarity
    return colour * (1 + .16 * patches + .26 * blades)[..., None]


def _road(canvas, rng, ground, half_width):
    """A straight road to the vanishing point, or a path; `half_width` in metres."""
    shift = between(rng, -.5, .5)
    colour = class_colour(rng, c.ROAD)
    lane = ground.across * ground.eye - shift  # metres from the middle of the road
    asphalt = 1 + .10 * canvas.noise(canvas.x / 1.6, canvas.y / 1.6) \
        + .08 * canvas.noise(ground.across * 3, ground.depth)
    colour = colour * asphalt[..., None]
    if half_width > 2:
        dash = (np.abs(lane) < .12) & (fraction(ground.depth * 1.3) < .55)
        edge = np.abs(np.abs(lane) - half_width * .92) < .09
        colour = np.where((dash | edge)[..., None], .88, colour)
    canvas.fill((np.abs(lane) < half_width) & (canvas.y > ground.horizon), colour, c.ROAD)


def _houses(canvas, rng, ground, gap):
    """A row of buildings whose feet stand a little below the horizon."""
    x = -canvas.width * between(rng, 0, .2)
    while x < canvas.width:
        width = canvas.width * between(rng, .22, .42)
        base = ground.line(canvas.height * between(rng, .012, .03))
        if not chance(rng, gap):
            height = canvas.height * between(rng, .22, .46)
            building(canvas, rng, x, x + width, base, height)
        x += width


def _water(canvas, rng, ground):
    """Water from the horizon down: waves, glitter and what it mirrors."""
    below = np.broadcast_to(canvas.y > ground.horizon, canvas.labels.shape)
    canvas.fill(below, _waves(canvas, rng, ground), c.WATER)


def _waves(canvas, rng, ground):
    tint = class_colour(rng, c.WATER)
    horizon = int(ground.horizon)
    mirrored = np.clip(2 * horizon - np.arange(canvas.height), 0, canvas.height - 1)
    mirror = canvas.image[mirrored] * .9
    share = between(rng, .25, .6) * np.clip(1.3 - (canvas.y - horizon) / canvas.height * 2, .2, 1)
    colour = tint + share[..., None] * (mirror - tint)
    bend = canvas.noise(canvas.x / 23, canvas.y / 7, octaves=2)
    swell = wave(ground.depth * 3 + bend) * ground.clarity
    ripple = canvas.noise(canvas.x / 8, canvas.y / 1.8)
    glitter = np.clip(ripple + .3 * bend - .45, 0, 1)
    return colour * (1 + .10 * swell + .14 * ripple)[..., None] + .5 * glitter[..., None]


def _shore(canvas, rng, ground, share):
    """The near bank; gives its line as (1, W) pixels."""
    line = canvas.height * share + canvas.height * .12 * canvas.noise(
        canvas.x / canvas.width * 2.3, canvas.x * 0 + 40.5, octaves=3)
    line = np.maximum(line, ground.horizon + canvas.height * .12)
    colour = _grass(canvas, rng, ground)
    sand = np.clip(1 - (canvas.y - line) / 5, 0, .7)[..., None]
    colour = colour + sand * (np.array([.72, .64, .50]) - colour)
    canvas.fill(canvas.y > line, colour, c.GRASS)
    return line


def _pond(canvas, rng, ground):
    """An oval of water on the meadow."""
    cx, cy = canvas.width * between(rng, .15, .85), canvas.height * between(rng, .66, .84)
    rx, ry = canvas.width * between(rng, .28, .5), canvas.height * between(rng, .10, .18)
    u, v = (canvas.x - cx) / rx, (canvas.y - cy) / ry
    edge = u * u + v * v + .3 * canvas.noise(canvas.x / 25, canvas.y / 13, octaves=2)
    canvas.fill((edge < 1) & (canvas.y > ground.horizon + 2), _waves(canvas, rng, ground), c.WATER)
