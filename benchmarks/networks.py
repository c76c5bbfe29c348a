"""Recipes of InternViT-6B, or as small ones, with random weights that are made on the device."""
from typing import Any

import torch
from mmcv import Config
from torch import Tensor, nn

from mmseg_custom.engine.config import load_config, resolve_config
from mmseg_custom.engine.options import RunOptions

from .context import Context
from .execution import ROOT

RECIPES = {
    'linear_probing': 'linear_probing/linear_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen.py',
    'head_tuning': 'head_tuning/upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen.py',
    'full_tuning': 'full_tuning/upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5.py',
}
TINY_BLOCKS = {'linear_probing': [4], 'head_tuning': [0, 1, 2, 4], 'full_tuning': [0, 1, 2, 5]}
SCALE_8_BITS = 5e-4  # for weights of about 0.02
IMAGES = 2  # crops of a process's step in the published recipes


def recipe(name: str, run: Context, **settings: Any) -> Config:
    """Returns the resolved config of a recipe of InternViT-6B, or of one that is tiny."""
    cfg = load_config(str(ROOT / 'configs/intern_vit_6b' / RECIPES[name]), settings)
    cfg.model.backbone.pretrained = None
    if run.tiny:
        width, channels = 64, 16
        cfg.model.backbone.update(embed_dim=width, depth=6, num_heads=2, img_size=84,
                                  out_indices=TINY_BLOCKS[name])
        for head in filter(None, (cfg.model.decode_head, cfg.model.get('auxiliary_head'))):
            head.in_channels = ([width] * 4 if isinstance(head.in_channels, list) else width)
            head.channels = width if head.get('num_convs') == 0 else channels
        cfg.model.test_cfg.update(crop_size=(84, 84), stride=(56, 56))
        cfg.optimizer.paramwise_cfg.num_layers = 6
    return resolve_config(cfg, RunOptions(device=run.device, work_dir='work_dirs/benchmarks'))[0]


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
            if not parameter.is_floating_point():  # 8 bits; also those of finite numbers in e4m3
                parameter.random_(1, 64, generator=generator)
            elif parameter.dim() > 1:
                parameter.normal_(0, 0.02, generator=generator)
            else:
                parameter.uniform_(0.05, 0.15, generator=generator)
        for name, buffer in model.named_buffers():
            buffer.fill_(SCALE_8_BITS if name.endswith('weight_scale') else
                         float(name.endswith('running_var')))
    return model


def random_images(device: str, *shape: int) -> Tensor:
    """Draws normalised images."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(device)


def matmul(run: Context, dtype: torch.dtype = torch.bfloat16, tokens: int = 2594,
           width: int = 3200) -> tuple[Any, float]:
    """Returns a product of the MLP's shape (of two crops by default), and its FLOP.

    Its rate is the limit of what consists of such products: measure it in turns with them.
    """
    tokens, width = (100, 64) if run.tiny else (tokens, width)
    x, weight = (torch.randn(*shape, device=run.device, dtype=dtype)
                 for shape in ((tokens, width), (4 * width, width)))
    return (lambda: nn.functional.linear(x, weight)), 2.0 * tokens * width * 4 * width


def block_flops(crops: int, cfg: Config, blocks: int) -> float:
    """Counts the operations of a forward pass: 24*N*D^2 + 4*N^2*D a block and crop."""
    height, width = crop_of(cfg)
    patch = cfg.model.backbone.get('patch_size', 14)
    tokens, dim = 1 + (height // patch) * (width // patch), cfg.model.backbone.get(
        'embed_dim', 3200)
    return crops * blocks * (24.0 * tokens * dim ** 2 + 4.0 * tokens ** 2 * dim)
