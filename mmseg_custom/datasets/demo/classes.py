"""The classes that the demo scenes show, as ADE20K numbers them, and the colours they share.

A label file stores `k` for class k of ADE20K's 150, counted from 1; 0 means 'other', which is not
scored. The colour families overlap on purpose: sky, water and walls share blues, trees and grass
share greens, doors and floors share browns. Colour alone does not tell a class.
"""

OTHER = 0
WALL = 1
BUILDING = 2
SKY = 3
FLOOR = 4
TREE = 5
CEILING = 6
ROAD = 7
GRASS = 10
PERSON = 13
DOOR = 15
TABLE = 16
MOUNTAIN = 17
PLANT = 18
CHAIR = 20
CAR = 21
WATER = 22
PAINTING = 23
LAMP = 37

DRAWN = (WALL, BUILDING, SKY, FLOOR, TREE, CEILING, ROAD, GRASS, PERSON, DOOR, TABLE, MOUNTAIN,
         PLANT, CHAIR, CAR, WATER, PAINTING, LAMP)

# Linear RGB-like triples in 0..1; `pick_colour` jitters them for every object.
BLUES = ((.42, .60, .84), (.55, .71, .88), (.32, .47, .66), (.66, .78, .88))
GREYS = ((.47, .47, .48), (.60, .60, .60), (.36, .37, .40), (.70, .69, .66))
GREENS = ((.29, .44, .20), (.38, .52, .24), (.22, .36, .22), (.47, .53, .27))
BROWNS = ((.50, .36, .24), (.62, .47, .32), (.38, .27, .20), (.68, .50, .40))
PALES = ((.82, .79, .72), (.76, .80, .84), (.84, .83, .82), (.76, .80, .70), (.82, .72, .66))
DRY = ((.62, .56, .34), (.58, .46, .26), (.66, .42, .22))
DUSK = ((.80, .62, .54), (.62, .54, .66), (.86, .72, .58))
VIVID = ((.72, .20, .18), (.20, .34, .66), (.86, .68, .20), (.22, .52, .34), (.16, .17, .20),
         (.88, .88, .86), (.52, .28, .52), (.30, .60, .66))
SKIN = ((.86, .66, .54), (.66, .47, .36), (.45, .31, .24), (.92, .76, .66))
