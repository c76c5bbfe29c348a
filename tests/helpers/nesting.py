"""Data sets in data sets: one table of nestings for all tests of what walks over data sets."""
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TRAIN = [f'ADE_train_{i:08d}' for i in range(1, 7)]
VAL = [f'ADE_val_{i:08d}' for i in range(1, 4)]
FOLDERS = dict(img_dir=['images/training', 'images/validation'],
               ann_dir=['annotations/training', 'annotations/validation'])


@dataclass(frozen=True)
class Nesting:
    """A config of nested data sets.

    Attributes:
        options: Makes the config from a function that makes the one of a plain data set; that
            function takes the name of a folder and options that replace the usual ones.
        names: Names of the images of each innermost data set, without suffix.
        length: Number of samples.
    """
    options: Callable[[Callable[..., dict]], dict | list]
    names: list[list[str]]
    length: int

    def of(self, plain: dict) -> dict | list:
        """Returns the config of the nested data sets.

        Args:
            plain: Config of a data set on what :func:`.data.draw_data` draws.
        """
        def part(folder: str = 'training', **options) -> dict:
            return dict(plain, img_dir=f'images/{folder}', ann_dir=f'annotations/{folder}',
                        **options)
        return self.options(part)


def repeated(inner: dict | list) -> dict:
    """Returns the config of a RepeatDataset."""
    return dict(type='RepeatDataset', times=3, dataset=inner)


def mixed(plain: dict, wrapped: Callable[[dict], dict | list] = lambda plain: plain) -> dict:
    """Returns the config of a MultiImageMixDataset, which makes mosaics of loaded images.

    Args:
        plain: Config of a plain data set; its pipeline after loading follows the mosaic.
        wrapped: Wraps the config in another one.
    """
    steps = plain['pipeline']
    mosaic = dict(type='RandomMosaic', prob=1.0, img_scale=(40, 40))
    return dict(type='MultiImageMixDataset', pipeline=[mosaic, *steps[2:]],
                dataset=wrapped(dict(plain, pipeline=steps[:2])))


NESTINGS = {
    'plain': Nesting(lambda part: part(), [TRAIN], 6),
    'RepeatDataset': Nesting(lambda part: repeated(part()), [TRAIN], 18),
    'list': Nesting(lambda part: [part(), part('validation')], [TRAIN, VAL], 9),
    'lists of folders': Nesting(lambda part: {**part(), **FOLDERS}, [TRAIN, VAL], 9),
    'list of splits': Nesting(lambda part: part(split=['a.txt', 'b.txt']),
                              [TRAIN[:1], TRAIN[1:3]], 3),
    'lists of splits and labels': Nesting(
        lambda part: {**part(split=['a.txt', 'b.txt']), 'ann_dir': ['annotations/training'] * 2},
        [TRAIN[:1], TRAIN[1:3]], 3),
    'repeated list': Nesting(lambda part: repeated([part(), part('validation')]),
                             [TRAIN, VAL], 27),
    'repeated folders': Nesting(lambda part: repeated({**part(), **FOLDERS}), [TRAIN, VAL], 27),
    'list of nested': Nesting(
        lambda part: [repeated({**part(), **FOLDERS}), [part('validation'), mixed(part())]],
        [TRAIN, VAL, VAL, TRAIN], 36),
    'MultiImageMixDataset': Nesting(lambda part: mixed(part(), repeated), [TRAIN], 18),
}
# One of each wrapper, for tests that take longer.
WRAPPERS = ['RepeatDataset', 'list', 'lists of folders', 'list of nested']


def write_splits(root: Path) -> None:
    """Writes the lists of images that some of the nestings read."""
    (root / 'a.txt').write_text(f'{TRAIN[0]}\n')
    (root / 'b.txt').write_text(f'{TRAIN[1]}\n{TRAIN[2]}\n')
