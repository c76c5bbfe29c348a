"""Results of tests on the tiny data set, with invented predictions."""
from pathlib import Path

import numpy as np
from mmcv import Config
from mmseg.datasets import CustomDataset, build_dataset
from PIL import Image

from mmseg_custom.datasets.ground_truth import read_ground_truth
from mmseg_custom.evaluation import evaluate, pre_eval, write_results
from mmseg_custom.evaluation.record import measure


def dataset_of(config: Path):
    return build_dataset(Config.fromfile(config).data.test, dict(test_mode=True))


def guesses(dataset, wrong: float, seed: int = 0) -> list[np.ndarray]:
    """Invents predictions: the ground truth, with a share of the blocks wrong, in class 0..3."""
    rng, found = np.random.default_rng(seed), []
    for index in range(len(dataset)):
        ground_truth = read_ground_truth(dataset, index)
        blocks = np.kron(rng.random((20, 20)) < wrong, np.ones((7, 7), bool))
        blocks = blocks[:ground_truth.shape[0], :ground_truth.shape[1]]
        found.append(np.where(blocks | (ground_truth == 255), rng.integers(0, 4), ground_truth))
    return found


def write_some(config: Path, path: Path, wrong: float = .3, seed: int = 0,
               metrics: tuple[str, ...] = ('mIoU', 'mBIoU'), checkpoint: str = 'none') -> Path:
    """Writes the results of invented predictions."""
    dataset = dataset_of(config)
    records = pre_eval(dataset, guesses(dataset, wrong, seed), range(len(dataset)),
                       boundary='mBIoU' in metrics)
    write_results(str(path), evaluate(dataset, records, metrics), records, dataset,
                  Config.fromfile(config), config=str(config), checkpoint=checkpoint, device='cpu',
                  seconds=1.5, memory=dict(host=2**30), skipped=['bad.jpg'])
    return path


def write_drawn(path: Path, wrong: float = .3, others: int = 0, images: int = 30, classes: int = 40,
                labelled: int = 9, side: int = 40, seed: int = 0) -> Path:
    """Writes results of drawn label maps, without a data set's files but for its images.

    Args:
        path: Path of the .json; images of one colour are written to `images` beside it.
        wrong: Share of the blocks whose prediction is another class.
        others: Number of classes that the ground truth does not show and that are predicted.
        images: Number of images.
        classes: Number of classes.
        labelled: Number of classes of the ground truth; the last is in 5 images alone.
        side: Height and width in pixels.
        seed: Seed of the draws; the ground truth does not depend on `wrong` and `others`.
    """
    rng, noise = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    folder = path.parent / 'images'
    folder.mkdir(exist_ok=True)
    records = []
    for index in range(images):
        name = f'{index:04d}.jpg'
        if not (folder / name).exists():
            Image.new('RGB', (side, side), (40, 90, 160)).save(folder / name)
        cells = rng.integers(0, labelled - 1, (10, 10))
        cells[0] = labelled - 1 if index < 5 else 0
        guessed = np.where(noise.random((10, 10)) < wrong, noise.integers(0, labelled, (10, 10)),
                           cells)
        if others:
            guessed[9, 0] = labelled + index % others
        ground_truth, prediction = (np.kron(one, np.ones((side // 10, side // 10), np.int64))
                                    for one in (cells, guessed))
        ground_truth[-2:] = 255
        records.append(measure(prediction, ground_truth, classes, name, boundary=True))
    dataset = CustomDataset(
        [], str(folder), img_suffix='.none', test_mode=True,
        classes=[f'class {k}' for k in range(classes)],
        palette=np.random.default_rng(1).integers(0, 256, (classes, 3)).tolist())
    evaluation = evaluate(dataset, records, ['mIoU', 'mBIoU'], logger='silent')
    write_results(str(path), evaluation, records, dataset, Config(),
                  config=f'{path.stem}.py', checkpoint='none', device='cpu', seconds=1.5,
                  memory=dict(host=2**30))
    return path
