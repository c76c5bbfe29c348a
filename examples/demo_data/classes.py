"""The classes that the demo scenes show, as ADE20K numbers them.

A label file stores `k` for class k of ADE20K's 150, counted from 1; 0 means 'other', which is not
scored.
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
