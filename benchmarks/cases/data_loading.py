"""Images a second that one core prepares for training, against what a GPU takes.

Runs the training pipeline of the linear-probing recipe (504x504 crops) on drawn JPEGs and PNGs of
ADE20K's mean size and of the size of a camera's pictures: as the recipe has it, and with
``LoadImageReduced``, whose pixels differ. Both run by turns, image by image, on one core; what is
counted is CPU time, so that other processes on the machine do not count. A GPU's need: a step of
InternViT-6B on 2 crops takes about 60 ms on an H200.
"""
import random
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from mmcv import Config

from benchmarks.context import Context, at_least
from benchmarks.execution import ROOT
from benchmarks.networks import RECIPES
from benchmarks.registry import benchmark
from mmseg_custom.datasets.build import build_train_dataset

SIZES = {'ADE20K': (512, 683), 'camera': (1536, 2048)}  # height, width in pixels
NEED, CORES = 2 / 0.060, 2  # images a second and GPU; cores that load them
IMAGES, REPEATS = 16, 3
PIPELINES = ('recipe', 'reduced')


def draw(folder: Path, size: tuple[int, int], count: int) -> None:
    """Draws smooth regions with grain, of ten classes."""
    rng = np.random.default_rng(0)
    for kind in ('images', 'annotations'):
        (folder / kind / 'training').mkdir(parents=True)
    for i in range(count):
        height, width = size
        colours = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
        picture = cv2.resize(colours, (width, height), interpolation=cv2.INTER_CUBIC)
        picture = (picture + rng.normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8)
        classes = rng.integers(1, 11, (12, 16)).astype(np.uint8)
        labels = cv2.resize(classes, (width, height), interpolation=cv2.INTER_NEAREST)
        name = f'ADE_train_{i + 1:08d}'
        cv2.imwrite(str(folder / f'images/training/{name}.jpg'), picture)
        cv2.imwrite(str(folder / f'annotations/training/{name}.png'), labels)


def datasets(folder: Path) -> dict:
    """Builds the same data set with both pipelines."""
    cfg = Config.fromfile(str(ROOT / 'configs/intern_vit_6b' / RECIPES['linear_probing']))
    train = {**cfg.data.train, 'data_root': str(folder)}
    load, labels, resize, *rest = train['pipeline']
    reduced = [dict(type='LoadImageReduced', img_scale=resize['img_scale'],
                    ratio_range=resize['ratio_range']), labels, dict(type='ResizeLabels'), *rest]
    return dict(recipe=build_train_dataset(train),
                reduced=build_train_dataset({**train, 'pipeline': reduced}))


def take(dataset, index: int, seed: int, times: dict) -> dict:
    """Loads a sample and adds the CPU seconds of each step to ``times``."""
    random.seed(seed)
    np.random.seed(seed)
    results = dict(img_info=dataset.img_infos[index], ann_info=dataset.get_ann_info(index))
    dataset.pre_pipeline(results)
    for step in dataset.pipeline.transforms:
        start = time.process_time()
        results = step(results)
        times[type(step).__name__].append(time.process_time() - start)
    return results


def measure(size: tuple[int, int], images: int, repeats: int) -> dict:
    """Runs both pipelines by turns; a sample is the mean of one pass over the images."""
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), size, images)
        sets = datasets(Path(folder))
        steps: dict = {name: defaultdict(list) for name in PIPELINES}
        wholes: dict[str, list[list[float]]] = {name: [] for name in PIPELINES}
        difference = []
        for turn in range(repeats):
            for name in PIPELINES:
                wholes[name].append([])
            for index in range(images):
                samples = {}
                for name in PIPELINES:
                    start = time.process_time()
                    samples[name] = take(sets[name], index, turn * images + index, steps[name])
                    wholes[name][-1].append(time.process_time() - start)
                pixels = {name: sample['img'].data for name, sample in samples.items()}
                difference.append(float((pixels['recipe'] - pixels['reduced']).abs().mean()))
    return dict(
        images_per_second={name: [1 / statistics.mean(one) for one in wholes[name]]
                           for name in PIPELINES},
        milliseconds={name: {step: round(1e3 * statistics.median(t), 3)
                             for step, t in steps[name].items()} for name in PIPELINES},
        reduced_difference=round(statistics.mean(difference), 4))


@benchmark('Images a second that loader cores prepare, against what a GPU takes', minutes=2,
           order=70)
def case(run: Context) -> None:
    """Measures both pipelines on both sizes of images."""
    cv2.setNumThreads(1)
    images, repeats = (2, 2) if run.tiny else (IMAGES, REPEATS)
    for kind, size in SIZES.items():
        found = measure(size, images, repeats)
        rates, name = found['images_per_second'], '{} ({}x{})'.format(kind, *size)
        run.row(f'{name}: images/s on {CORES} cores, the recipe', 'images/s',
                [CORES * rate for rate in rates['recipe']], {'the need of an H200': NEED},
                targets=[at_least('the need of an H200', 1)], higher_is_better=True,
                notes='CPU time on one core, doubled')
        run.row(f'{name}: images/s and core, decoded reduced', 'images/s', rates['reduced'],
                {'the recipe': rates['recipe']}, higher_is_better=True,
                notes=f'mean difference of pixels: {found["reduced_difference"]} standard '
                      'deviations of a channel')
        run.fact(**{f'{kind}: ms by step': found['milliseconds']})
