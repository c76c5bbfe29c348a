"""Images a second that one core prepares for training, against what a GPU takes.

    python benchmarks/data_loading.py [--images 16 --repeats 3] [--json results.json]

Takes the training pipeline of the linear-probing recipe (504x504 crops) over drawn JPEGs and PNGs
of ADE20K's usual size, and of the size of a camera's pictures: as mmseg has it, with the faster
steps that training puts in their place (same seeds, same results, compared here), and with
``LoadImageReduced``, whose pixels differ. The ways take turns, image by image, on one core; printed
are times of the processor, so that neighbours on the machine do not count. A GPU's need: a step of
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
import torch  # noqa: E402
from mmcv import Config  # noqa: E402
from mmseg.datasets import build_dataset  # noqa: E402, I001

import mmseg_custom  # noqa: E402,F401 - before mmseg, which needs its stand-in
from mmseg_custom.datasets.loading import accelerate  # noqa: E402

RECIPE = ('configs/intern_vit_6b/linear_probing/'
          'linear_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen.py')
SIZES = {'ADE20K': (512, 683), 'camera': (1536, 2048)}  # height, width in pixels
NEED = 2 / 0.060  # images a second and GPU
WAYS = ('mmseg', 'faster', 'reduced')


def draw(folder: Path, size: tuple[int, int], count: int) -> None:
    """Smooth regions with grain; ten classes."""
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
    """The same data set in three ways."""
    cfg = Config.fromfile(str(Path(__file__).resolve().parents[1] / RECIPE))
    train = {**cfg.data.train, 'data_root': str(folder)}
    load, labels, resize, *rest = train['pipeline']
    reduced = [dict(type='LoadImageReduced', img_scale=resize['img_scale'],
                    ratio_range=resize['ratio_range']), labels, dict(type='ResizeLabels'), *rest]
    return dict(mmseg=build_dataset(train), faster=accelerate(build_dataset(train)),
                reduced=accelerate(build_dataset({**train, 'pipeline': reduced})))


def take(dataset, index: int, seed: int, times: dict) -> dict:
    """A sample, with the time of each step."""
    random.seed(seed)
    np.random.seed(seed)
    results = dict(img_info=dataset.img_infos[index], ann_info=dataset.get_ann_info(index))
    dataset.pre_pipeline(results)
    for step in dataset.pipeline.transforms:
        start = time.process_time()
        results = step(results)
        times[type(step).__name__.removeprefix('Fast')].append(time.process_time() - start)
    return results


def measure(size: tuple[int, int], images: int, repeats: int) -> dict:
    """The ways by turns."""
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), size, images)
        sets = datasets(Path(folder))
        steps = {way: defaultdict(list) for way in WAYS}
        wholes = defaultdict(list)
        difference = []
        for seed in range(images * repeats):
            samples = {}
            for way in WAYS:
                start = time.process_time()
                samples[way] = take(sets[way], seed % images, seed, steps[way])
                wholes[way].append(time.process_time() - start)
            pixels = {way: sample['img'].data for way, sample in samples.items()}
            if not torch.equal(pixels['mmseg'], pixels['faster']):
                sys.exit('the faster steps return something else')
            if pixels['mmseg'].shape == pixels['reduced'].shape:
                difference.append(float((pixels['mmseg'] - pixels['reduced']).abs().mean()))
    return dict(
        images_per_second={way: 1 / statistics.mean(wholes[way]) for way in WAYS},
        milliseconds={way: {name: 1e3 * statistics.median(t) for name, t in steps[way].items()}
                      for way in WAYS},
        reduced_difference=statistics.mean(difference))


def show(name: str, figures: dict) -> None:
    """Prints a table."""
    rates = figures['images_per_second']
    size = '{}x{}'.format(*SIZES[name])
    print(f'{name} ({size})   images/s and core   cores a GPU   gain')
    for way in WAYS:
        print(f'  {way:<24}{rates[way]:>10.1f}{NEED / rates[way]:>15.1f}'
              f'{rates[way] / rates["mmseg"]:>8.2f}x')
    print(f'  ms by step (median)   {"mmseg":>10}{"faster":>10}{"reduced":>10}')
    steps = list(dict.fromkeys(s for way in WAYS for s in figures['milliseconds'][way]))
    for step in steps:
        values = [figures['milliseconds'][way].get(step) for way in WAYS]
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
