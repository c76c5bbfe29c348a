"""What the parts of gpu_check.py share: their options, networks of random weights, clocks."""
import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmseg_custom  # noqa: F401 - first, before mmseg, which needs its stand-in

import torch  # isort: skip
from mmcv import Config
from torch import Tensor, nn

from mmseg_custom.engine.config import load_config, resolve_config
from mmseg_custom.engine.options import RunOptions

ROOT = Path(__file__).resolve().parents[2]
RECIPES = {
    'linear_probing': 'linear_probing/linear_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen.py',
    'head_tuning': 'head_tuning/upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen.py',
    'full_tuning': 'full_tuning/upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5.py',
}
WRONG = 3  # exit code of a part that ran and found something wrong
TINY_BLOCKS = {'linear_probing': [4], 'head_tuning': [0, 1, 2, 4], 'full_tuning': [0, 1, 2, 5]}


def arguments(description: str, **positional: list[str]) -> argparse.Namespace:
    """Reads the command line of a part."""
    parser = argparse.ArgumentParser(description=description)
    for name, choices in positional.items():
        parser.add_argument(name, choices=choices)
    parser.add_argument('--device', choices=('cuda', 'cpu'), default='cuda')
    parser.add_argument('--tiny', action='store_true', help='networks and images that a CPU takes '
                        'seconds for: tries the part, measures nothing')
    parser.add_argument('--seconds', type=float, default=4.0, help='length of each timing')
    parser.add_argument('--limit', type=float, default=600, help='seconds until it is killed')
    parser.add_argument('--json', type=Path, help='file to write the figures to')
    return parser.parse_args()


def write(figures: dict[str, Any], flags: list[str], path: Path | None) -> None:
    """Writes what was measured so far, which is kept if the part is killed; the file is whole."""
    if path is not None:
        part = path.with_suffix('.part')
        part.write_text(json.dumps(dict(figures=figures, flags=flags), indent=1))
        part.replace(path)


def report(figures: dict[str, Any], flags: list[str], path: Path | None) -> None:
    """Prints and writes the figures and what is wrong with them, and ends the part."""
    print(json.dumps(dict(figures=figures, flags=flags), indent=1))
    write(figures, flags, path)
    sys.exit(WRONG if flags else 0)


def recipe(name: str, tiny: bool, device: str, **settings: Any) -> Config:
    """Returns the resolved config of a recipe of InternViT-6B, or of one that is as small."""
    cfg = load_config(str(ROOT / 'configs/intern_vit_6b' / RECIPES[name]), settings)
    cfg.model.backbone.pretrained = None
    if tiny:
        width, channels = 64, 16
        cfg.model.backbone.update(embed_dim=width, depth=6, num_heads=2, img_size=84,
                                  out_indices=TINY_BLOCKS[name])
        for head in filter(None, (cfg.model.decode_head, cfg.model.get('auxiliary_head'))):
            head.in_channels = ([width] * 4 if isinstance(head.in_channels, list) else width)
            head.channels = width if head.get('num_convs') == 0 else channels
        cfg.model.test_cfg.update(crop_size=(84, 84), stride=(56, 56))
        cfg.optimizer.paramwise_cfg.num_layers = 6
    return resolve_config(cfg, RunOptions(device=device, work_dir='work_dirs/gpu_check'))[0]


def crop_of(cfg: Config) -> tuple[int, int]:
    """Returns height and width of a crop, in pixels."""
    return tuple(cfg.model.test_cfg.crop_size)


def fill(model: nn.Module, device: str) -> nn.Module:
    """Moves a network from the meta device to a device, with random weights that are made there.

    Time and memory depend on shapes alone, but power, and so the clocks, on values: none is zero.
    """
    generator = torch.Generator(device).manual_seed(0)
    model.to_empty(device=device)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.02, generator=generator)
            else:
                parameter.uniform_(0.05, 0.15, generator=generator)
        for name, buffer in model.named_buffers():
            buffer.fill_(float(name.endswith('running_var')))
    return model


def wait(device: str) -> None:
    """Waits until the device has done its work."""
    if device == 'cuda':
        torch.cuda.synchronize()


def seconds_per_call(work: Callable[[], object], device: str, seconds: float,
                     warm_up: int = 3) -> float:
    """Returns the mean seconds of a call, over as many calls as take about ``seconds``.

    The host runs ahead of the GPU from the first to the last of them, as in a run.
    """
    for _ in range(warm_up):
        work()
    once = _seconds(work, device, 3) / 3
    count = max(3, int(seconds / once))
    return _seconds(work, device, count) / count


def _seconds(work: Callable[[], object], device: str, count: int) -> float:
    wait(device)
    start = time.perf_counter()
    for _ in range(count):
        work()
    wait(device)
    return time.perf_counter() - start


def matmul_rate(device: str, tiny: bool, tokens: int = 2594, width: int = 3200) -> float:
    """Measures the FLOP/s of a product of the MLP's shape in bfloat16, of two crops by default."""
    tokens, width = (100, 64) if tiny else (tokens, width)
    x, weight = (torch.randn(*shape, device=device, dtype=torch.bfloat16)
                 for shape in ((tokens, width), (4 * width, width)))
    seconds = seconds_per_call(lambda: nn.functional.linear(x, weight), device,
                               0.05 if tiny else 0.5)
    return 2 * tokens * width * 4 * width / seconds


def backbone_flops(crops: int, cfg: Config, blocks: int) -> float:
    """Counts the operations of a forward pass: 24*N*D^2 + 4*N^2*D a block and crop."""
    height, width = crop_of(cfg)
    patch = cfg.model.backbone.get('patch_size', 14)
    tokens, dim = 1 + (height // patch) * (width // patch), cfg.model.backbone.get(
        'embed_dim', 3200)
    return crops * blocks * (24.0 * tokens * dim ** 2 + 4.0 * tokens ** 2 * dim)


def random_images(device: str, *shape: int) -> Tensor:
    """Draws normalised images."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(device)
