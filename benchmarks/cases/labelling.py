"""Labels of one image from the logits of its windows: time, memory and agreement against mmseg's.

The network is tiny, so that mostly the steps after it are measured, from windows to labels. The
image is 504x672 with 150 classes, labelled at 512x683 and at 1500x2000 pixels. Both segmentors have
the same weights and take turns in one process; peak memory is measured in separate processes, each
with one prediction (VmHWM; on a GPU the memory that PyTorch allocated).
"""
from functools import partial

import numpy as np
import torch
from mmcv import ConfigDict
from mmseg.models import build_segmentor
from torch import nn

from benchmarks.context import Context, at_least, at_most
from benchmarks.processes import call_in_process
from benchmarks.registry import benchmark
from mmseg_custom.peak_memory import process_peak

MMSEG = "mmseg's segmentor"
KINDS = {MMSEG: 'EncoderDecoder', 'ours': 'InternViTSegmentor'}
IMAGE = (504, 672)  # pixels
SPEED = {(512, 683): 3, (1500, 2000): 5}  # size of the labels in pixels -> expected on the CPU
MEMORY = {(1500, 2000): 0.25}
AGREEMENT = 0.9999


def build(kind: str, device: str) -> nn.Module:
    """Builds a segmentor with a tiny backbone and a linear head, in float32, from a fixed seed."""
    torch.manual_seed(0)
    model = build_segmentor(ConfigDict(
        type=KINDS[kind],
        backbone=dict(type='InternViT6B', embed_dim=64, depth=1, num_heads=2, img_size=504,
                      out_indices=[0], init_values=1.),
        decode_head=dict(type='FCNHead', in_channels=64, channels=64, num_convs=0,
                         concat_input=False, with_norm=True, num_classes=150, dropout_ratio=0.),
        test_cfg=dict(mode='slide', crop_size=(504, 504), stride=(322, 322))))
    return model.float().eval().to(device)


def label(model: nn.Module, output: tuple[int, int], device: str) -> np.ndarray:
    """Predicts the label map of the image, at ``output`` pixels."""
    generator = torch.Generator().manual_seed(1)
    blobs = torch.randn(1, 3, 18, 24, generator=generator)
    image = nn.functional.interpolate(blobs, IMAGE, mode='bilinear')
    image += 0.2 * torch.randn(image.shape, generator=generator)
    meta = dict(img_shape=(*IMAGE, 3), pad_shape=(*IMAGE, 3), ori_shape=(*output, 3), flip=False)
    with torch.no_grad():
        return model(return_loss=False, img=[image.to(device)], img_metas=[[meta]])[0]


def peak_bytes(kind: str, output: tuple[int, int], device: str) -> int:
    """Returns the peak memory of this process after one prediction."""
    label(build(kind, device), tuple(output), device)
    return process_peak(device)


@benchmark("From windows to labels, against mmseg's segmentor with a tiny network", minutes=2,
           order=40)
def case(run: Context) -> None:
    """Measures time, memory and agreement at each size of the labels."""
    models = {kind: build(kind, run.device) for kind in KINDS}
    for output in list(SPEED)[:1] if run.tiny else SPEED:
        size = '{}x{}'.format(*output)
        labels = [label(model, output, run.device) for model in models.values()]
        times = run.measure({kind: partial(label, model, output, run.device)
                             for kind, model in models.items()})
        run.row(f'labels of {size}', 'ms', times['ours'], {MMSEG: times[MMSEG]},
                targets=[] if run.on_gpu else [at_least(MMSEG, SPEED[output])])
        agreement = float((labels[0] == labels[1]).mean())
        run.fact(**{f'{size}: share of equal labels': agreement})
        if agreement < AGREEMENT:
            run.wrong(f'{agreement:.6f} of the labels at {size} are those of mmseg')
        if run.tiny:
            continue
        peaks = {kind: call_in_process(peak_bytes, kind, output, run.device) for kind in KINDS}
        targets = [at_most(MMSEG, MEMORY[output])] if output in MEMORY and not run.on_gpu else []
        run.row(f'peak memory of a process, labels of {size}', 'MiB', peaks['ours'],
                {MMSEG: peaks[MMSEG]}, targets=targets)
