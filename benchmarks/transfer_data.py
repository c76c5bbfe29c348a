"""Data of the transfer task: drawn scenes by where they are, outdoors or indoors, in two data sets.

Each is a folder as docs/custom_dataset.md describes it: dataset.yaml, images/PART, labels/PART. The
ten classes of one are not those of the other, but for people and plants.
"""
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from examples.demo_data import classes
from examples.demo_data.scene import LAYOUTS, draw_scene

PLACES = {  # numbers of the classes that are drawn there
    'outdoor': (classes.BUILDING, classes.SKY, classes.TREE, classes.ROAD, classes.GRASS,
                classes.PERSON, classes.MOUNTAIN, classes.PLANT, classes.CAR, classes.WATER),
    'indoor': (classes.WALL, classes.FLOOR, classes.CEILING, classes.PERSON, classes.DOOR,
               classes.TABLE, classes.PLANT, classes.CHAIR, classes.PAINTING, classes.LAMP),
}
NAMES = {number: name.lower() for name, number in vars(classes).items() if isinstance(number, int)}
IGNORED = 255


def draw(folder: Path, place: str, seed: int, counts: Mapping[str, int]) -> Path:
    """Draws a data set, unless it is there; returns the file that describes it.

    Args:
        folder: Folder that it is drawn in.
        place: One of ``PLACES``.
        seed: Seed of the images.
        counts: Number of images by part: 'train', 'val', 'test'.
    """
    description = folder / 'dataset.yaml'
    content = yaml.safe_dump(dict(
        classes={NAMES[number]: [20 * position, 128, 250 - 20 * position]
                 for position, number in enumerate(PLACES[place])},
        **{part: dict(images=f'images/{part}', labels=f'labels/{part}') for part in counts},
    ), sort_keys=False)
    if description.exists():
        return description
    numbers = np.full(256, IGNORED, np.uint8)
    numbers[list(PLACES[place])] = range(len(PLACES[place]))
    for split, (part, count) in enumerate(counts.items()):
        for kind in ('images', 'labels'):
            (folder / kind / part).mkdir(parents=True, exist_ok=True)
        for name, index in zip(range(count), _indices(place)):
            image, labels = draw_scene(seed, split, index)
            Image.fromarray(image).save(folder / f'images/{part}/{name:04d}.jpg', quality=92)
            Image.fromarray(numbers[labels]).save(folder / f'labels/{part}/{name:04d}.png')
    description.write_text(content)  # last: a set that was cut short is drawn again
    return description


def _indices(place: str) -> Iterator[int]:
    """Yields the indices of scenes whose layout is one of a place."""
    inside = [i for i, layout in enumerate(LAYOUTS) if layout.__module__.endswith(f'.{place}')]
    start = 0
    while True:
        yield from (start + i for i in inside)
        start += len(LAYOUTS)
