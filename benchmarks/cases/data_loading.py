"""Images a second that one core prepares for training, against what a GPU takes.

Runs the training pipeline of the linear-probing recipe (504x504 crops) on drawn JPEGs and PNGs of
ADE20K's mean size and of the size of a camera's pictures: as the recipe has it, and with
``LoadImageReduced``, whose pixels differ. Both run by turns, image by image, on one core; what is
counted is CPU time, so that other processes on the machine do not count. A GPU's need: a step of
InternViT-6B on 2 crops takes about 60 ms on an H200.

Then decoders of the same JPEGs, whose pixels are compared with OpenCV's: torchvision's on the CPU,
whose pixels have to be put into the order of the pipeline, and nvJPEG, a batch at a time.
"""
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import torch
from mmcv import Config
from torchvision.io import ImageReadMode, decode_jpeg

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


def measure(folder: Path, images: int, repeats: int) -> dict:
    """Runs both pipelines by turns; a sample is the mean of one pass over the images."""
    sets = datasets(folder)
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


def decoders(files: list[Path]) -> dict[str, Callable[[], np.ndarray]]:
    """Returns functions that decode a JPEG on the CPU, the next one at each call: BGR (H, W, 3)."""
    stored = [np.frombuffer(path.read_bytes(), np.uint8) for path in files]
    tensors = [torch.from_numpy(file.copy()) for file in stored]
    turn = {name: cycle(stored) for name in ('OpenCV', 'OpenCV, reduced')}
    turn_of_tensors = cycle(tensors)

    def torchvision_cpu() -> np.ndarray:
        rgb = decode_jpeg(next(turn_of_tensors), ImageReadMode.RGB).numpy()
        return np.ascontiguousarray(rgb[::-1].transpose(1, 2, 0))

    return {
        'OpenCV': lambda: cv2.imdecode(next(turn['OpenCV']), cv2.IMREAD_COLOR),
        'OpenCV, reduced': lambda: cv2.imdecode(next(turn['OpenCV, reduced']),
                                                cv2.IMREAD_REDUCED_COLOR_2),
        'torchvision': torchvision_cpu}


def decode(run: Context, name: str, files: list[Path]) -> None:
    """Measures decoders of the same files."""
    found = decoders(files)
    pixels = {other: decode().astype(int) for other, decode in found.items()}
    differences = {'torchvision': float(np.abs(pixels['torchvision'] - pixels['OpenCV']).mean())}
    times = run.measure(found, seconds=1, clock='cpu')
    run.row(f'{name}: decoding a JPEG on a core', 'ms', times['OpenCV'],
            {other: times[other] for other in found if other != 'OpenCV'}, notes='CPU time')
    title = f'{name}: decoding by nvJPEG, {len(files)} at once'
    if not run.on_gpu:
        run.missing(title, 'no GPU')
    else:
        tensors = [torch.from_numpy(np.frombuffer(path.read_bytes(), np.uint8).copy())
                   for path in files]

        def nvjpeg() -> list[torch.Tensor]:
            return decode_jpeg(tensors, ImageReadMode.RGB, device='cuda')

        first = nvjpeg()[0].cpu().numpy()[::-1].transpose(1, 2, 0).astype(int)
        differences['nvJPEG'] = float(np.abs(first - pixels['OpenCV']).mean())
        run.row(title, 'images/s', [len(files) / took for took in run.measure(
            {'nvjpeg': nvjpeg}, seconds=1)['nvjpeg']],
            {'OpenCV on a core': [1 / took for took in times['OpenCV']]}, higher_is_better=True,
            notes='the GPU trains nothing meanwhile')
    run.fact(**{f'{name}: mean difference of pixels, of 255': differences})


@benchmark('Images a second that loader cores prepare, against what a GPU takes', minutes=2,
           order=70)
def case(run: Context) -> None:
    """Measures both pipelines on both sizes of images."""
    cv2.setNumThreads(1)
    images, repeats = (2, 2) if run.tiny else (IMAGES, REPEATS)
    for kind, size in SIZES.items():
        name = '{} ({}x{})'.format(kind, *size)
        with tempfile.TemporaryDirectory() as folder:
            draw(Path(folder), size, images)
            found = measure(Path(folder), images, repeats)
            decode(run, name, sorted(Path(folder).glob('images/training/*.jpg')))
        rates = found['images_per_second']
        run.row(f'{name}: images/s on {CORES} cores, the recipe', 'images/s',
                [CORES * rate for rate in rates['recipe']], {'the need of an H200': NEED},
                targets=[at_least('the need of an H200', 1)], higher_is_better=True,
                notes='CPU time on one core, doubled')
        run.row(f'{name}: images/s and core, decoded reduced', 'images/s', rates['reduced'],
                {'the recipe': rates['recipe']}, higher_is_better=True,
                notes=f'mean difference of pixels: {found["reduced_difference"]} standard '
                      'deviations of a channel')
        run.fact(**{f'{kind}: ms by step': found['milliseconds']})
