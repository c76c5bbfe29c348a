"""Images a second that one core prepares for training, against what a GPU takes.

    python benchmarks/data_loading.py [--images 16 --repeats 3] [--json results.json]

Runs the training pipeline of the linear-probing recipe (504x504 crops) on drawn JPEGs and PNGs of
ADE20K's mean size and of the size of a camera's pictures: as the recipe has it, and with
``LoadImageReduced``, whose pixels differ. Both run by turns, image by image, on one core; printed
is CPU time, so that other processes on the machine do not count. A GPU's need: a step of
InternViT-6B on 2 crops takes about 60 ms on an H200.
"""
import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from mmcv import Config  # noqa: E402

from mmseg_custom.datasets.build import build_train_dataset  # noqa: E402

RECIPE = ('configs/intern_vit_6b/linear_probing/'
          'linear_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen.py')
SIZES = {'ADE20K': (512, 683), 'camera': (1536, 2048)}  # height, width in pixels
NEED = 2 / 0.060  # images a second and GPU
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
    cfg = Config.fromfile(str(Path(__file__).resolve().parents[1] / RECIPE))
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
    """Runs both pipelines by turns."""
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), size, images)
        sets = datasets(Path(folder))
        steps = {name: defaultdict(list) for name in PIPELINES}
        wholes = defaultdict(list)
        difference = []
        for seed in range(images * repeats):
            samples = {}
            for name in PIPELINES:
                start = time.process_time()
                samples[name] = take(sets[name], seed % images, seed, steps[name])
                wholes[name].append(time.process_time() - start)
            pixels = {name: sample['img'].data for name, sample in samples.items()}
            difference.append(float((pixels['recipe'] - pixels['reduced']).abs().mean()))
    return dict(
        images_per_second={name: 1 / statistics.mean(wholes[name]) for name in PIPELINES},
        milliseconds={name: {step: 1e3 * statistics.median(t) for step, t in steps[name].items()}
                      for name in PIPELINES},
        reduced_difference=statistics.mean(difference))


def show(kind: str, figures: dict) -> None:
    """Prints a table."""
    rates = figures['images_per_second']
    size = '{}x{}'.format(*SIZES[kind])
    print(f'{kind} ({size})   images/s and core   cores a GPU   gain')
    for name in PIPELINES:
        print(f'  {name:<24}{rates[name]:>10.1f}{NEED / rates[name]:>15.1f}'
              f'{rates[name] / rates["recipe"]:>8.2f}x')
    print(f'  ms by step (median)   {"recipe":>10}{"reduced":>10}')
    steps = list(dict.fromkeys(s for name in PIPELINES for s in figures['milliseconds'][name]))
    for step in steps:
        values = [figures['milliseconds'][name].get(step) for name in PIPELINES]
        print(f'  {step:<22}' + ''.join(f'{v:>10.2f}' if v is not None else f'{"":>10}'
                                        for v in values))
    print(f'  mean difference of "reduced", in standard deviations of a channel: '
          f'{figures["reduced_difference"]:.3f}\n')


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=16)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--json', help='also write the figures there')
    args = parser.parse_args()
    cv2.setNumThreads(1)
    print(f'a GPU takes {NEED:.1f} images/s (2 crops in 60 ms)\n')
    results = {}
    for name, size in SIZES.items():
        results[name] = measure(size, args.images, args.repeats)
        show(name, results[name])
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1) + '\n')


if __name__ == '__main__':
    main()
