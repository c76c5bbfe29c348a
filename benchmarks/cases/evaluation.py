"""Labels of images with the sizes of ADE20K, at the real width, against the original's way.

The images reach the network as the recipe's test pipeline resizes them (the short side to that of
the crop), and are labelled at their own size. The original's way is mmseg's segmentor, which runs
one window at a time, with the original's backbone on the same weights. On the CPU both have two
blocks, of which the original's runs both and ours the one that is read, and few images.

A test does more: it reads the ground truth of each image, and measures. Ours does so in a thread
while the GPU computes the next image; the references do one after the other.
"""
import statistics
import tempfile
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from mmcv.parallel import DataContainer
from torch import nn

from benchmarks.context import Context, at_least
from benchmarks.networks import crop_of, fill, matmul, recipe
from benchmarks.original import OriginalBackbone
from benchmarks.registry import benchmark
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.engine.build import build_network, compute_dtype
from mmseg_custom.engine.copies import HostCopy
from mmseg_custom.engine.predict import predict, predict_labels
from mmseg_custom.evaluation.record import measure

ORIGINAL = "the original's way"
# Height and width of the originals, in pixels, and how many of them: 683x512 is the mean.
SIZES = {(512, 683): 12, (683, 512): 4, (1024, 768): 2, (512, 1600): 1, (1920, 2560): 1}
CPU_SIZES = {(512, 683): 1}
TINY_SIZES = {(60, 80): 2, (120, 90): 1}
PATCH, CLASSES = 14, 150
LEAST_AGREEMENT = 0.9  # of labels, with random weights in bfloat16 through other kernels

Image = tuple[torch.Tensor, dict]


def draw(sizes: dict[tuple[int, int], int], short: int) -> list[Image]:
    """Draws images of these sizes, as the test pipeline would pass them: (3, H, W) and metas."""
    images = []
    for size, count in sizes.items():
        scale = short / min(size)
        shape = [PATCH * round(side * scale / PATCH) for side in size]
        meta = dict(ori_shape=(*size, 3), img_shape=(*shape, 3), pad_shape=(*shape, 3), flip=False)
        for _ in range(count):
            blobs = torch.randn(1, 3, shape[0] // PATCH, shape[1] // PATCH)
            image = nn.functional.interpolate(blobs, shape, mode='bilinear')[0]
            images.append((image + 0.2 * torch.randn(image.shape), meta))
    return images


def label(model: nn.Module, images: list[Image], device: str) -> list[np.ndarray]:
    """Labels images one after the other."""
    with torch.no_grad():
        return [np.asarray(labels.wait() if isinstance(labels, HostCopy) else labels)
                for image, meta in images
                for labels in predict_labels(model, [[image.to(device)]], [[meta]])]


class Test:
    """A test on images in memory, with ground truth in files.

    Args:
        images: Images of :func:`draw`.
        folder: Folder for the ground truth, which is drawn.
    """

    def __init__(self, images: list[Image], folder: str):
        self.images, self.dataset, self.folder = images, range(len(images)), folder
        self.batch_sampler = [[index] for index in self.dataset]
        rng = np.random.default_rng(0)
        for index, (_, meta) in enumerate(images):
            classes = cv2.resize(rng.integers(0, CLASSES, (12, 16)).astype(np.uint8),
                                 meta['ori_shape'][1::-1], interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(f'{folder}/{index}.png', classes)

    def __iter__(self) -> Iterator[dict]:
        for image, meta in self.images:
            yield dict(img=[image[None]], img_metas=[DataContainer([[meta]], cpu_only=True)])

    def keep(self, labels: list[np.ndarray], indices: list[int]) -> list:
        """Measures predictions."""
        return [measure(own, cv2.imread(f'{self.folder}/{index}.png', cv2.IMREAD_UNCHANGED),
                        CLASSES, str(index)) for own, index in zip(labels, indices)]

    def overlapped(self, model: nn.Module, device: str) -> list:
        """Tests as tools/test.py does."""
        found = predict(model, self, device, self.keep)
        if found.stopped_by is not None:
            raise found.stopped_by
        return found.in_order()

    def in_turns(self, model: nn.Module, device: str) -> list:
        """Tests with the host and the device in turns."""
        return [self.keep([labels.astype(np.int64)], [index])[0]
                for index, image in enumerate(self.images)
                for labels in label(model, [image], device)]


def measure_tests(run: Context, model: nn.Module, original: nn.Module,
                  images: list[Image]) -> None:
    """Measures tests, and compares the areas of their classes."""
    with tempfile.TemporaryDirectory() as folder:
        test = Test(images, folder)
        times = run.measure({
            'ours': lambda: test.overlapped(model, run.device),
            'ours, in turns': lambda: test.in_turns(model, run.device),
            ORIGINAL: lambda: test.in_turns(original, run.device)}, rounds=3, warm_up=1)
        beside = [test.overlapped(model, run.device), test.in_turns(model, run.device)]
    rates = {name: [len(images) / seconds for seconds in times[name]] for name in times}
    run.row('images tested, with their metrics', 'images/s', rates.pop('ours'), rates,
            targets=[at_least(ORIGINAL, 1.5)], higher_is_better=True,
            notes='' if run.on_gpu else 'on the CPU nothing overlaps')
    if any(not torch.equal(a, b) for pair in zip(*beside) for a, b in zip(*pair)):
        run.wrong('the metrics of images differ between overlapped and in turns')


def build(run: Context) -> tuple[nn.Module, nn.Module, int]:
    """Builds ours, and mmseg's segmentor on the same weights; returns the crop in pixels, too."""
    cfg = recipe('linear_probing', run)
    if not run.on_gpu and not run.tiny:
        cfg.model.backbone.update(depth=2, out_indices=[0])
    model = build_network(cfg, on_meta=True, trained=False).requires_grad_(False)
    apply_precision(model, compute_dtype(cfg, model), run.device)
    fill(model, run.device).eval()
    cfg.model.type = 'EncoderDecoder'
    original = build_network(cfg, on_meta=True, trained=False)
    original.backbone, original.decode_head = OriginalBackbone(model.backbone), model.decode_head
    torch.backends.cudnn.benchmark = cfg.get('cudnn_benchmark', False)  # as in tools/test.py
    return model, original.eval(), crop_of(cfg)[0]


@benchmark("Labels of ADE20K-sized images, against mmseg's windows and the original's blocks",
           minutes=5, order=12)
def case(run: Context) -> None:
    """Measures both in turns, and compares their labels."""
    model, original, short = build(run)
    sizes = TINY_SIZES if run.tiny else SIZES if run.on_gpu else CPU_SIZES
    images = draw(sizes, short)
    one_of_each = list({meta['ori_shape']: (image, meta) for image, meta in images}.values())
    for network in (model, original):  # warms up, and measures a window
        label(network, one_of_each, run.device)
    if run.on_gpu:
        run.row('peak memory', 'GiB', run.peak_memory(lambda: label(model, images, run.device)))
    product, flops = matmul(run)
    times = run.measure({
        'ours': lambda: label(model, images, run.device),
        ORIGINAL: lambda: label(original, images, run.device),
        'product': product}, rounds=3, warm_up=1)
    rates = {name: [len(images) / seconds for seconds in times[name]] for name in times}
    run.row('images labelled one at a time', 'images/s', rates['ours'],
            {ORIGINAL: rates[ORIGINAL]}, targets=[at_least(ORIGINAL, 1.5)], higher_is_better=True,
            notes='' if run.on_gpu else 'two blocks, of which one is read')
    same = float(np.mean(np.concatenate([(a == b).ravel() for a, b in zip(
        label(model, images, run.device), label(original, images, run.device))])))
    run.fact(share_of_equal_labels=same,
             matmul_tflops=round(flops / statistics.median(times['product']) / 1e12, 3))
    if same < LEAST_AGREEMENT:
        run.wrong(f'{same:.3f} of the labels are those of mmseg')
    measure_tests(run, model, original, images)
    if not run.on_gpu and not run.tiny:
        return  # one image was all that was labelled
    usual = run.measure({'mean': lambda: label(model, images[:1], run.device),
                         'largest': lambda: label(model, images[-1:], run.device)}, rounds=3)
    run.row('an image of the mean size, 512x683', 'ms', usual['mean'])
    run.row('the largest image', 'ms', usual['largest'])
