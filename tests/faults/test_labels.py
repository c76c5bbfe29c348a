"""What label files mean: data sets of every kind against an oracle in numpy alone."""
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.faults import FIGURES
from mmseg.datasets import DATASETS
from PIL import Image

from mmseg_custom.datasets.build import build_test_dataset, build_train_dataset
from mmseg_custom.datasets.ground_truth import read_ground_truth
from mmseg_custom.errors import InputError

pytestmark = pytest.mark.slow
EACH = 30
STEPS = [dict(type='LoadImageFromFile')]


@dataclass(frozen=True)
class Kind:
    """A kind of data set.

    Attributes:
        names: Names of the classes, in the order of their numbers in the files.
        first: Number of the first class in the files.
        ignored: Numbers in the files that are no class.
        suffixes: Endings of images and labels.
    """
    names: tuple[str, ...]
    first: int
    ignored: tuple[int, ...]
    suffixes: tuple[str, str] = ('.jpg', '.png')


def of(name: str, first: int, ignored: tuple[int, ...], **options) -> Kind:
    return Kind(tuple(DATASETS.get(name).CLASSES), first, ignored, **options)


OWN = tuple('abcdefg')
KINDS = {
    'ADE20KDataset': of('ADE20KDataset', 1, (0, 255)),
    'CityscapesDataset': of('CityscapesDataset', 0, (255,), suffixes=(
        '_leftImg8bit.png', '_gtFine_labelTrainIds.png')),
    'COCOStuffDataset': of('COCOStuffDataset', 0, (255,), suffixes=('.jpg', '_labelTrainIds.png')),
    'PascalContextDataset': of('PascalContextDataset', 0, (255,)),
    'PascalContextDataset59': of('PascalContextDataset59', 1, (0, 255)),
    'PascalVOCDataset': of('PascalVOCDataset', 0, (255,)),
    'CustomDataset': Kind(OWN, 0, (255,)),
    'CustomDataset from 1': Kind(OWN, 1, (0, 255)),
    'DescribedDataset': Kind(OWN, 0, (255,)),
}


def oracle(stored: np.ndarray, kind: Kind, wanted: tuple[str, ...]) -> np.ndarray | None:
    """Returns what a label file means, (H, W): the place of each pixel's class among the wanted.

    None if a number is neither a class nor ignored.
    """
    meaning = np.full(256, -1)
    for number in kind.ignored:
        meaning[number] = 255
    for place, name in enumerate(kind.names):
        meaning[kind.first + place] = wanted.index(name) if name in wanted else 255
    labels = meaning[stored]
    return None if (labels < 0).any() else labels


def draw(rng: random.Random, kind: Kind, wrong: bool) -> np.ndarray:
    """Draws what a label file holds, (H, W): some classes, what is ignored, or what is neither."""
    known = [kind.first + place for place in range(len(kind.names))]
    few = rng.sample(known, min(len(known), rng.randrange(1, 9)))
    numbers = few + list(kind.ignored) * rng.randrange(2) + [known[-1], known[0]]
    if wrong:
        unknown = sorted(set(range(256)) - set(known) - set(kind.ignored))
        numbers.append(rng.choice([unknown[0], unknown[-1], rng.choice(unknown)]))
    shape = rng.randrange(1, 40), rng.randrange(1, 40)
    stored = np.array(rng.choices(numbers, k=shape[0] * shape[1]), np.uint8).reshape(shape)
    stored.flat[rng.randrange(stored.size)] = numbers[-1]
    return stored


def write(folder: Path, name: str, kind: Kind, stored: np.ndarray, rng: random.Random,
          wanted: tuple[str, ...] | None) -> dict:
    """Writes a data set of one sample, and returns its config."""
    images, labels = folder / 'images', folder / 'labels'
    images.mkdir(parents=True), labels.mkdir()
    Image.fromarray(np.zeros((*stored.shape, 3), np.uint8)).save(images / f'a{kind.suffixes[0]}')
    label = Image.fromarray(stored)
    if rng.random() < .3:  # the same numbers, in a file with colours for them
        label = label.convert('P')
        label.putdata(stored.ravel().tolist())
    label.save(labels / f'a{kind.suffixes[1]}')
    if name == 'DescribedDataset':
        (folder / 'data.yaml').write_text(yaml.safe_dump(dict(
            classes={one: [i, 0, 0] for i, one in enumerate(kind.names)},
            train=dict(images='images', labels='labels')), sort_keys=False))
        return dict(type=name, description=str(folder / 'data.yaml'), part='train')
    config = dict(type=name.split()[0], img_dir=str(images), ann_dir=str(labels))
    if config['type'].startswith('Pascal'):
        (folder / 'list.txt').write_text('a\n')
        config['split'] = str(folder / 'list.txt')
    if config['type'] == 'CustomDataset':
        config.update(classes=list(kind.names), reduce_zero_label=kind.first == 1)
    elif wanted is not None:
        config.update(classes=list(wanted))
    return config


def trained_on(config: dict, reduces: bool) -> np.ndarray:
    steps = [*STEPS, dict(type='LoadAnnotations', reduce_zero_label=reduces)]
    return build_train_dataset(dict(config, pipeline=steps))[0]['gt_semantic_seg'].astype(int)


def evaluated_on(config: dict, reduces: bool) -> np.ndarray:
    del reduces
    return read_ground_truth(build_test_dataset(dict(config, pipeline=STEPS)), 0)


@pytest.mark.parametrize('path', [trained_on, evaluated_on], ids=lambda path: path.__name__)
@pytest.mark.parametrize('name', KINDS)
def test_labels_mean_what_the_oracle_says(name, path, tmp_path, caplog):
    kind, wrong = KINDS[name], []
    rng = random.Random(f'{name} {path.__name__}')
    for number in range(EACH):
        asked = None
        if kind.names is not OWN and rng.random() < .7:
            asked = tuple(rng.sample(kind.names, rng.randrange(2, min(12, len(kind.names)))))
        stored = draw(rng, kind, wrong=rng.random() < .3)
        folder = tmp_path / str(number)
        config = write(folder, name, kind, stored, rng, asked)
        expected = oracle(stored, kind, asked or kind.names)
        FIGURES.labels += 1
        try:
            found = path(config, kind.first == 1)
        except InputError as error:
            if expected is not None:
                wrong.append(f'{folder}: classes={asked}: refused: {error}')
        except Exception as error:  # the list below names it
            FIGURES.wrong['traceback'] += 1
            wrong.append(f'{folder}: {type(error).__name__}: {error}')
        else:
            if expected is None:
                wrong.append(f'{folder}: numbers that are no class were taken')
            elif not np.array_equal(found, expected):
                pairs = sorted({(int(a), int(b), int(c)) for a, b, c in zip(
                    stored.ravel(), found.ravel(), expected.ravel()) if b != c})
                wrong.append(f'{folder}: classes={asked}: (stored, found, meant) {pairs[:4]}')
    FIGURES.wrong['wrong labels'] += len(wrong)
    assert not wrong, f'{len(wrong)} of {EACH}:\n' + '\n'.join(wrong)

