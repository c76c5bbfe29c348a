"""The 5.9-billion-parameter backbone on this machine: memory to build it, time of one crop.

    python benchmarks/full_size.py

Builds the backbone of the linear-probing recipe with random weights in bfloat16, runs one 504x504
crop through backbone and head, and prints the time, the peak memory, and which share of the rate of
a matrix product of the MLP's shape, measured before and after in the same run, the network reaches.
"""
import argparse
import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mmcv  # noqa: E402, I001
import torch  # noqa: E402
from mmseg.models import build_segmentor  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import mmseg_custom  # noqa: E402,F401 - before mmseg, which needs its stand-in

RECIPE = ('configs/intern_vit_6b/linear_probing/'
          'linear_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen.py')


def peak_gb() -> float:
    """Peak resident memory of the process so far, in 10^9 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def best_seconds(step, device: str, repeats: int) -> float:
    """The shortest of several timings, after one run to warm up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        step()
        if device == 'cuda':
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def matmul_rate(tokens: int, width: int, device: str) -> float:
    """FLOP/s of the product that the MLP's first layer is."""
    x = torch.randn(tokens, width, device=device, dtype=torch.bfloat16)
    weight = torch.randn(4 * width, width, device=device, dtype=torch.bfloat16)
    seconds = best_seconds(lambda: nn.functional.linear(x, weight), device, 5)
    return 2 * tokens * width * 4 * width / seconds


def flops(tokens: int, width: int, blocks: int) -> int:
    """Of the blocks: 24*N*D^2 for the projections and 4*N^2*D for attention, each."""
    return blocks * (24 * tokens * width ** 2 + 4 * tokens ** 2 * width)


def main() -> None:
    """Builds, runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--depth', type=int, help='fewer blocks, for a quick try')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--repeats', type=int, default=2, help='timings to take the best of')
    parser.add_argument('--json', help='also write the figures there')
    args = parser.parse_args()
    cfg = mmcv.Config.fromfile(str(Path(__file__).resolve().parents[1] / RECIPE))
    cfg.model.backbone.pretrained = None
    if args.depth:
        cfg.model.backbone.update(depth=args.depth, out_indices=[args.depth - 1])
    imports_gb = peak_gb()
    start = time.perf_counter()
    with torch.device(args.device):
        model = build_segmentor(cfg.model).eval()
    built, build_gb = time.perf_counter() - start, peak_gb()
    backbone = model.backbone
    tokens = 1 + (504 // backbone.patch_size) ** 2
    blocks = max(backbone.out_indices) + 1
    image = torch.randn(1, 3, 504, 504, device=args.device)
    rate_before = matmul_rate(tokens, backbone.embed_dim, args.device)

    def step() -> Tensor:
        with torch.no_grad():
            return model.encode_decode(image, None)

    with torch.no_grad():
        seconds = best_seconds(lambda: backbone(image), args.device, args.repeats)
    whole = best_seconds(step, args.device, 1)
    rate = max(rate_before, matmul_rate(tokens, backbone.embed_dim, args.device))
    weights_gb = sum(p.numel() * p.element_size() for p in model.parameters()) / 1e9
    figures = dict(
        parameters=sum(p.numel() for p in backbone.parameters()), blocks_run=blocks,
        weights_gb=weights_gb, imports_gb=imports_gb, peak_after_build_gb=build_gb,
        peak_gb=peak_gb(), build_s=built, backbone_s=seconds, crop_to_logits_s=whole,
        matmul_gflops=rate / 1e9, share=flops(tokens, backbone.embed_dim, blocks) / seconds / rate,
        torch=torch.__version__, threads=torch.get_num_threads(), device=args.device)
    for name, value in figures.items():
        print(f'{name:<22}{value:.3f}' if isinstance(value, float) else f'{name:<22}{value}')
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))


if __name__ == '__main__':
    main()
