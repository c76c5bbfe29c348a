"""Testing one image with our segmentor and with mmseg's: time, peak memory, agreement of labels.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --config CONFIG --checkpoint CHECKPOINT    # a data set as well

The network is tiny, so that mostly the steps after it are measured, from windows to labels. The
image is 504x672 with 150 classes, labelled at 512x683 and at 1500x2000 pixels. Both segmentors have
the same weights and take turns in one process; peak memory is measured in separate processes, each
with one prediction (VmHWM; on a GPU the memory that PyTorch allocated). With a config and a
checkpoint, both also test that data set, and their metrics are compared.
"""
import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from mmcv import ConfigDict  # noqa: E402
from torch import nn  # noqa: E402

import mmseg_custom  # noqa: E402,F401 - before mmseg, which needs its stand-in
from mmseg_custom.engine.config import load_config, resolve_config  # noqa: E402
from mmseg_custom.engine.loaders import build_test_loader  # noqa: E402
from mmseg_custom.engine.options import RunOptions  # noqa: E402
from mmseg_custom.engine.predict import predict  # noqa: E402
from mmseg_custom.engine.run import prepare_run  # noqa: E402
from mmseg_custom.engine.test import build_test_model  # noqa: E402
from mmseg_custom.peak_memory import process_peak  # noqa: E402
from mmseg_custom.units import MIB  # noqa: E402

from mmseg.models import build_segmentor  # noqa: E402, I001, isort: skip

KINDS = dict(mmseg='EncoderDecoder', ours='InternViTSegmentor')
IMAGE = (504, 672)  # pixels
LIMITS = {(512, 683): dict(speed=3), (1500, 2000): dict(speed=5, memory=0.25)}
AGREEMENT = 0.9999


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--repeats', type=int, default=3, help='number of timings; the best counts')
    parser.add_argument('--config', help='config whose data set both segmentors test')
    parser.add_argument('--checkpoint', default='none', help='checkpoint file for --config')
    parser.add_argument('--json', help='file to write the measurements to')
    parser.add_argument('--peak', nargs=3, metavar=('KIND', 'H', 'W'), help=argparse.SUPPRESS)
    return parser.parse_args()


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


def seconds(model: nn.Module, output: tuple[int, int], device: str) -> float:
    """Measures the time of one prediction, until the labels are on the host."""
    start = time.perf_counter()
    label(model, output, device)
    return time.perf_counter() - start


def peak_bytes(kind: str, output: tuple[int, int], device: str) -> int:
    """Measures the peak memory of a process that makes one prediction."""
    done = subprocess.run([sys.executable, __file__, '--device', device, '--peak', kind,
                           *map(str, output)], check=True, text=True, stdout=subprocess.PIPE)
    return int(done.stdout.split()[-1])


def print_peak(kind: str, output: tuple[int, int], device: str) -> None:
    """Prints the peak memory of this process, which :func:`peak_bytes` started."""
    label(build(kind, device), output, device)
    print(process_peak(device))


def compare(output: tuple[int, int], device: str, repeats: int) -> dict:
    """Measures time, memory and agreement at one size of the output."""
    models = {kind: build(kind, device) for kind in KINDS}
    labels = {kind: label(model, output, device) for kind, model in models.items()}
    times = {kind: [] for kind in KINDS}
    for _ in range(repeats):
        for kind, model in models.items():
            times[kind].append(seconds(model, output, device))
    best = {kind: min(values) for kind, values in times.items()}
    peaks = {kind: peak_bytes(kind, output, device) for kind in KINDS}
    return dict(output=output, seconds=best, speed=best['mmseg'] / best['ours'], peak=peaks,
                memory=peaks['ours'] / peaks['mmseg'],
                agreement=float((labels['mmseg'] == labels['ours']).mean()))


def compare_data(config: str, checkpoint: str, device: str) -> dict[str, dict]:
    """Computes the metrics of both segmentors on the test data of a config, in float32."""
    metrics = {}
    for kind in KINDS:
        options = RunOptions(device=device, checkpoint=checkpoint)
        settings = {'model.type': KINDS[kind], 'precision': 'fp32'}
        cfg, _ = resolve_config(load_config(config, settings), options)
        run = prepare_run(cfg, options, ['test'])
        dataset = run.data['test']
        found = predict(build_test_model(run), build_test_loader(run, 'test'), device,
                        dataset.pre_eval)
        if found.stopped_by is not None:
            raise found.stopped_by
        values = dataset.evaluate(found.in_order(), logger='silent')
        metrics[kind] = {name: values[name] for name in ('mIoU', 'mAcc', 'aAcc')}
    return metrics


def main() -> None:
    """Measures, prints, and fails if a limit is missed."""
    args = parse_args()
    if args.peak:
        kind, *output = args.peak
        print_peak(kind, tuple(map(int, output)), args.device)
        return
    where = torch.cuda.get_device_name() if args.device == 'cuda' else (
        f'{torch.get_num_threads()} threads')
    print(f'{args.device}, {where}; one image of {IMAGE[0]}x{IMAGE[1]}, 150 classes')
    print(f'{"output":>10}{"mmseg s":>10}{"ours s":>9}{"ratio":>8}{"mmseg MiB":>11}{"ours MiB":>10}'
          f'{"ratio":>8}{"same labels":>13}')
    rows, missed = [], []
    for output, limits in LIMITS.items():
        row = compare(output, args.device, args.repeats)
        rows.append(row)
        size, took, peak = '{}x{}'.format(*output), row['seconds'], row['peak']
        print(f'{size:>10}{took["mmseg"]:>10.3f}{took["ours"]:>9.3f}{row["speed"]:>8.2f}'
              f'{peak["mmseg"] / MIB:>11.0f}{peak["ours"] / MIB:>10.0f}'
              f'{row["memory"]:>8.3f}{row["agreement"]:>13.6f}')
        if row['agreement'] < AGREEMENT:
            missed.append(f'labels agree on {row["agreement"]:.6f} at {output}')
        if args.device == 'cpu' and (row['speed'] < limits['speed']
                                     or row['memory'] > limits.get('memory', 1)):
            missed.append(f'speed or memory at {output}')
    metrics = compare_data(args.config, args.checkpoint, args.device) if args.config else None
    for kind, values in (metrics or {}).items():
        print(f'\n{kind:>6}: ' + ', '.join(f'{name} {value:.4f}' for name, value in values.items()),
              end='')
    if metrics and metrics['mmseg'] != metrics['ours']:
        missed.append('the metrics of the data set differ')
    print()
    if args.json:
        content = dict(device=where, rows=rows, data=metrics)
        Path(args.json).write_text(json.dumps(content, indent=2))
    if missed:
        sys.exit('missed: ' + '; '.join(missed))


if __name__ == '__main__':
    main()
