"""Rooms in one-point perspective: a dining room, a hall, a lounge.

The far wall is a rectangle; rays from the vanishing point through its corners separate the floor,
the ceiling and the side walls. How near a thing is (`Thing.near`) is 1 at the far wall and grows
towards the camera: what is h pixels high there is `near * h` pixels high here. How tall it is
(`Thing.tall`) is a share of the room's height.
"""
import numpy as np

from . import classes as c
from .canvas import between, chance, pick
from .colours import class_colour
from .indoor_things import chair, door, floor_lamp, painting, pendant_lamp, table
from .textures import bricks, fraction
from .things import Thing, clutter, house_plant, person, several


class Room:
    """Where the far wall is, and the scale of the floor before it; all in pixels."""

    def __init__(self, canvas, rng):
        height, width = canvas.height, canvas.width
        self.top = height * between(rng, -.02, .24)
        self.bottom = height * between(rng, .62, .76)
        self.left = width * between(rng, -.15, .22)
        self.right = width * between(rng, .78, 1.15)
        self.vx = width * between(rng, .38, .62)
        self.vy = self.top + (self.bottom - self.top) * between(rng, .32, .52)
        self.storey = self.bottom - self.top  # height of the room at the far wall


def dining_room(canvas, rng):
    """A table with chairs under a lamp, pictures and often a door on the wall."""
    room = _shell(canvas, rng)
    _wall_things(canvas, rng, room, doors=.6)
    things = _table_and_chairs(canvas, rng)
    things += several(rng, house_plant, (0, 1), pick(rng, ((.04, .14), (.86, .96))), (1.08, 1.15),
                      (.48, .66))
    things += several(rng, person, (0, 1), (.1, .9), (1.1, 1.4), (.66, .76))
    things += several(rng, clutter, (0, 0, 1), (.1, .9), (1.2, 1.6), (.08, .12))
    _place(canvas, rng, room, things)
    if chance(rng, .75):
        _pendant(canvas, rng, room)


def hall(canvas, rng):
    """Doors, pictures and people, a lamp, little furniture."""
    room = _shell(canvas, rng)
    _wall_things(canvas, rng, room, doors=1.)
    things = several(rng, person, (1, 2), (.08, .92), (1.1, 1.6), (.64, .76))
    things += several(rng, house_plant, (0, 1, 1), (.05, .95), (1.08, 1.2), (.48, .66))
    things += several(rng, chair, (0, 1), (.1, .9), (1.1, 1.3), (.48, .54))
    things += several(rng, floor_lamp, (0, 1), (.08, .92), (1.06, 1.25), (.65, .80))
    _place(canvas, rng, room, things)
    if chance(rng, .7):
        _pendant(canvas, rng, room)


def lounge(canvas, rng):
    """Chairs, often a table, a standing lamp, plants and pictures."""
    room = _shell(canvas, rng)
    _wall_things(canvas, rng, room, doors=.45)
    things = _table_and_chairs(canvas, rng) if chance(rng, .65) else []
    things += several(rng, chair, (1, 2), (.08, .92), (1.15, 1.6), (.48, .56))
    things += several(rng, floor_lamp, (1,), (.06, .94), (1.1, 1.35), (.65, .80))
    things += several(rng, house_plant, (1, 2), (.04, .96), (1.08, 1.3), (.48, .68))
    things += several(rng, person, (0, 0, 1), (.1, .9), (1.1, 1.5), (.64, .74))
    _place(canvas, rng, room, things)


def _shell(canvas, rng):
    """Paints the walls, the floor and the ceiling."""
    room = Room(canvas, rng)
    x, y = canvas.x, canvas.y
    reach = [(x - room.vx) / (room.right - room.vx) + 0 * y,
             (x - room.vx) / (room.left - room.vx) + 0 * y,
             (y - room.vy) / (room.bottom - room.vy) + 0 * x,
             (y - room.vy) / (room.top - room.vy) + 0 * x]
    nearest = np.maximum(np.maximum(reach[0], reach[1]), np.maximum(reach[2], reach[3]))
    s = np.maximum(nearest, 1)
    # The point of the wall, floor or ceiling under each pixel, in pixels at the far wall.
    u, v = (x - room.vx) / s, (y - room.vy) / s
    depth = room.storey * (1 - 1 / s) * 3
    side = (nearest > 1) & ((reach[0] == nearest) | (reach[1] == nearest))
    below = (nearest > 1) & (reach[2] == nearest)
    above = (nearest > 1) & (reach[3] == nearest)

    paint = class_colour(rng, c.WALL)
    along = np.where(side, depth * np.where(x > room.vx, 1., -1.) + 100, u)
    tone = _wall_finish(canvas, rng, along, v)
    facing = np.where(side, 1 + .18 * canvas.light * np.where(x > room.vx, -1, 1) - .08, 1.)
    corner = 1 - .16 * np.clip(1 - np.abs(nearest - 1) * 9, 0, 1)
    soft = 1 + .10 * canvas.noise(x / 70, y / 70) - .12 * canvas.light * (x / canvas.width - .5)
    canvas.fill(~(below | above), paint * (tone * facing * corner * soft)[..., None], c.WALL)
    dim = (corner * soft)[..., None]
    canvas.fill(above, _ceiling(canvas, rng, paint, u, depth) * dim, c.CEILING)
    canvas.fill(below, _floor(canvas, rng, u, depth) * dim, c.FLOOR)
    if chance(rng, .6):  # a skirting board
        height = room.storey * .035
        board = ~(below | above) & (v > room.bottom - room.vy - height)
        canvas.image[board] *= pick(rng, (.6, .75, 1.2))
    return room


def _wall_finish(canvas, rng, along, v):
    kind = int(rng.integers(4))
    if kind == 0:
        return 1 + .10 * np.sign(fraction(along / between(rng, 7, 14)) - .5)
    if kind == 1:
        size = between(rng, 10, 16)
        return bricks(canvas.noise, along / size, v / size * 2, contrast=.16)
    if kind == 2:
        return 1 + .14 * canvas.noise(along / 5, v / 5, octaves=2)
    return 1 + .03 * canvas.noise(along / 2, v / 2)


def _ceiling(canvas, rng, paint, u, depth):
    colour = class_colour(rng, c.CEILING)
    if chance(rng, .3):
        colour = .5 * colour + .5 * paint
    if chance(rng, .4):
        size = between(rng, 14, 26)
        return colour * bricks(canvas.noise, u / size, depth / size / 2, .07, 0, .05)[..., None]
    return colour * (1 + .03 * canvas.noise(u / 3, depth / 3))[..., None]


def _floor(canvas, rng, u, depth):
    kind, colour = int(rng.integers(3)), class_colour(rng, c.FLOOR)
    if kind == 0:
        width = between(rng, 6, 11)
        tone = bricks(canvas.noise, depth / width / 6, u / width, .08, .5, .22)
        return colour * tone[..., None]
    if kind == 1:
        size = between(rng, 14, 24)
        tone = bricks(canvas.noise, u / size, depth / size, .07, 0, .10)
        return colour * tone[..., None]
    tone = 1 + .16 * canvas.noise(u / 1.5, depth / 1.5) + .1 * canvas.noise(u / 15, depth / 15)
    return colour * tone[..., None]


def _wall_things(canvas, rng, room, doors):
    """A door and pictures, side by side on the far wall."""
    slots = [.14, .38, .62, .86]
    left, right = max(0, room.left), min(canvas.width, room.right)
    if chance(rng, doors):
        slot = slots.pop(int(rng.integers(len(slots))))
        door(canvas, rng, left + (right - left) * slot, room.bottom,
             room.storey * between(rng, .70, .82))
    for _ in range(int(rng.integers(1, 3))):
        slot = slots.pop(int(rng.integers(len(slots))))
        half = min((right - left) * .125, room.storey * between(rng, .22, .36))
        cx, cy = left + (right - left) * slot, room.top + room.storey * between(rng, .30, .42)
        tall = min(half * between(rng, .75, 1.35), room.storey * .29)
        painting(canvas, rng, cx - half, cy - tall, cx + half, cy + tall)


def _table_and_chairs(canvas, rng):
    """A table, and chairs beside, behind and before it."""
    across, near, half = between(rng, .3, .7), between(rng, 1.15, 1.5), between(rng, .18, .27)

    def draw(canvas, rng, cx, base, height):
        table(canvas, rng, cx, base, height, 2 * half * canvas.width)

    things = [Thing(draw, across, near, between(rng, .30, .36))]
    for side in (-1, 1):
        place = across + side * half * 1.2
        things += several(rng, chair, (0, 1, 1, 1), (place - .04, place + .04),
                          (near - .12, near + .12), (.46, .54))
    return things


def _pendant(canvas, rng, room):
    """A hanging lamp, clear of the floor."""
    ceiling = max(room.top * between(rng, .2, .9), 0)
    size = room.storey * between(rng, .24, .34)
    pendant_lamp(canvas, rng, canvas.width * between(rng, .25, .75), ceiling,
                 room.storey * between(rng, .05, .16), size)


def _place(canvas, rng, room, things):
    """Draws the things, from the far wall to the camera."""
    for thing in sorted(things, key=lambda thing: thing.near):
        base = min(room.vy + thing.near * (room.bottom - room.vy), canvas.height * 1.02)
        near = (base - room.vy) / (room.bottom - room.vy)
        thing.draw(canvas, rng, thing.across * canvas.width, base, thing.tall * room.storey * near)
