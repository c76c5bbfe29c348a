"""Labels of images with the sizes of ADE20K, at full size: images/s against the original's way.

The images reach the network as the recipe's test pipeline resizes them (the short side to that of
the crop), and are labelled at their own size. The rival is mmseg's segmentor, which runs one window
at a time, with the original's backbone on the same weights.
"""
import logging
import time

import numpy as np
import torch
from common import arguments, crop_of, fill, matmul_rate, recipe, report, wait, write
from mmseg.utils import get_root_logger
from original import OriginalBackbone
from torch import nn

from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.engine.build import build_network, compute_dtype
from mmseg_custom.engine.predict import predict_labels
from mmseg_custom.units import GIB

# Height and width of the originals, in pixels, and how many of them: 683x512 is the mean.
SIZES = {(512, 683): 12, (683, 512): 4, (1024, 768): 2, (512, 1600): 1, (1920, 2560): 1}
TINY_SIZES = {(60, 80): 2, (120, 90): 1}
PATCH = 14
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


def label(model: nn.Module, images: list[Image], device: str) -> tuple[float, list[np.ndarray]]:
    """Labels images one after the other; returns the seconds and the label maps."""
    wait(device)
    start, labels = time.perf_counter(), []
    with torch.no_grad():
        for image, meta in images:
            labels += predict_labels(model, [[image.to(device)]], [[meta]])
    wait(device)
    return time.perf_counter() - start, labels


def main() -> None:
    """Measures both, in turns, and reports."""
    args = arguments(__doc__)
    get_root_logger(log_level=logging.ERROR)
    torch.manual_seed(0)
    cfg = recipe('linear_probing', args.tiny, args.device)
    model = build_network(cfg, on_meta=True, trained=False).requires_grad_(False)
    apply_precision(model, compute_dtype(cfg, model), args.device)
    fill(model, args.device).eval()
    cfg.model.type = 'EncoderDecoder'
    rival = build_network(cfg, on_meta=True, trained=False)
    rival.backbone, rival.decode_head = OriginalBackbone(model.backbone), model.decode_head
    rival.eval()
    torch.backends.cudnn.benchmark = cfg.get('cudnn_benchmark', False)  # as in tools/test.py
    images = draw(TINY_SIZES if args.tiny else SIZES, crop_of(cfg)[0])
    one_of_each = list({meta['ori_shape']: (image, meta) for image, meta in images}.values())
    for network in (model, rival):  # warms up, and measures a window
        label(network, one_of_each, args.device)
    if args.device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    ours, labels = label(model, images, args.device)
    figures = dict(images=len(images), images_per_s=len(images) / ours)
    if args.device == 'cuda':
        figures['peak_gib'] = torch.cuda.max_memory_allocated() / GIB
    write(figures, [], args.json)
    theirs, expected = label(rival, images, args.device)
    again, _ = label(model, images, args.device)
    same = float(np.mean(np.concatenate([(a == b).ravel() for a, b in zip(labels, expected)])))
    largest, _ = label(model, images[-1:], args.device)
    usual, _ = label(model, images[:1], args.device)
    ours = min(ours, again)
    figures.update(images_per_s=len(images) / ours, rival_images_per_s=len(images) / theirs,
                   rival_over_ours=theirs / ours, ms_of_the_mean_size=1e3 * usual,
                   ms_of_the_largest=1e3 * largest, same_labels=same,
                   matmul_tflops=matmul_rate(args.device, args.tiny) / 1e12)
    flags = [] if same >= LEAST_AGREEMENT else [f'{same:.3f} of the labels are those of mmseg']
    report(figures, flags, args.json)


if __name__ == '__main__':
    main()
