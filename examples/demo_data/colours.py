"""Colours of the classes and of parts of things, RGB in 0..1.

The classes' colours overlap on purpose: sky, water and walls share blues, trees, plants and grass
greens, doors, tables and floors browns, and one in eight of any class takes the colours of another.
Colour says something about a class, as in photographs, but never enough.
"""
import numpy as np

from . import classes as c
from .canvas import between, chance, pick

GREYS = ((.47, .47, .48), (.60, .60, .60), (.36, .37, .40), (.70, .69, .66))
BROWNS = ((.50, .36, .24), (.62, .47, .32), (.38, .27, .20), (.68, .50, .40))
PALES = ((.82, .79, .72), (.76, .80, .84), (.84, .83, .82), (.82, .72, .66))
BLUES = ((.42, .60, .84), (.55, .71, .88), (.66, .78, .88))
AUTUMN = ((.62, .56, .34), (.58, .46, .26), (.66, .42, .22))
DUSK = ((.80, .62, .54), (.62, .54, .66), (.86, .72, .58))
VIVID = ((.72, .20, .18), (.20, .34, .66), (.86, .68, .20), (.22, .52, .34), (.88, .88, .86),
         (.52, .28, .52), (.30, .60, .66))
SKIN = ((.86, .66, .54), (.66, .47, .36), (.45, .31, .24), (.92, .76, .66))

# A class's usual colours, then those that one in eight takes.
CLASS_COLOURS = {
    c.SKY: (BLUES, DUSK),
    c.WATER: (((.20, .36, .50), (.27, .45, .56), (.34, .47, .55), (.22, .36, .40)), BLUES),
    c.MOUNTAIN: (((.47, .41, .38), (.53, .47, .43), (.39, .38, .42)), ((.34, .42, .28),)),
    c.GRASS: (((.42, .55, .22), (.50, .58, .26), (.36, .50, .20)), AUTUMN),
    c.TREE: (((.20, .36, .16), (.26, .40, .20), (.16, .30, .18), (.33, .43, .19)), AUTUMN),
    c.PLANT: (((.16, .44, .26), (.24, .50, .24), (.30, .48, .22)), AUTUMN),
    c.ROAD: (((.34, .34, .36), (.42, .42, .43), (.28, .29, .31)), BROWNS),
    c.BUILDING: (((.66, .44, .34), (.74, .62, .48), (.80, .74, .66), (.56, .36, .30)), GREYS),
    c.CAR: (VIVID, GREYS),
    c.WALL: (((.80, .75, .64), (.68, .74, .78), (.71, .76, .66), (.79, .68, .62)), GREYS),
    c.CEILING: (((.93, .92, .90), (.88, .88, .87)), BROWNS),
    c.FLOOR: (((.50, .34, .22), (.58, .42, .28), (.40, .28, .20), (.50, .48, .46)), PALES),
    c.DOOR: (((.50, .27, .15), (.58, .34, .19), (.42, .23, .14)), (*VIVID, *PALES)),
    c.TABLE: (((.70, .54, .35), (.78, .64, .45), (.62, .45, .27)), PALES),
    c.CHAIR: (((.62, .18, .16), (.20, .34, .56), (.30, .46, .26), (.24, .22, .24)), BROWNS),
    c.PAINTING: (((.66, .52, .22), (.56, .42, .18), (.20, .17, .16)), BROWNS),
    c.LAMP: (((.94, .84, .62), (.90, .76, .52)), VIVID),
}


def pick_colour(rng, *families, jitter=.055):
    """A colour of one of the families, moved in brightness and in hue: (3,)."""
    base = np.array(pick(rng, pick(rng, families)))
    hue = (rng.random(3) * 2 - 1) * jitter
    return np.clip(base * between(rng, .88, 1.12) + hue, .04, .98)


def class_colour(rng, label):
    """A colour for one object or surface of a class: (3,)."""
    usual, other = CLASS_COLOURS[label]
    return pick_colour(rng, other if chance(rng, 1 / 8) else usual)
