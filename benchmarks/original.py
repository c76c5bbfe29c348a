"""The original's way, as the reference of a measurement: on the same weights, eager and unfused.

As InternVL's segmentation folder runs a frozen backbone: each norm in separate operations, in
float32; flash attention; layer scale, residual and GELU as operations of their own; all 48 blocks,
also those after the last one that is read.

B batch, N tokens, D width.
"""
import copy

import torch
from mmcv import Config
from mmcv import runner as mmcv_runner
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.utils import get_root_logger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmseg_custom.engine.build import build_network
from mmseg_custom.layers.attention import sdpa
from mmseg_custom.models.backbones.intern_vit import InternViT6B


class OriginalBackbone(nn.Module):
    """A frozen backbone whose blocks run as in the original.

    Args:
        backbone: Network whose modules are shared.
    """

    def __init__(self, backbone: InternViT6B):
        super().__init__()
        self.backbone = backbone

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> a float32 feature map (B, D, h, w) for each of ``out_indices``."""
        net = self.backbone
        tokens, grid = net.patch_embed(images)
        tokens = net._add_positions(tokens, grid)
        maps = []
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            for i, block in enumerate(net.blocks):
                tokens = run_block(block, tokens)
                if i in net.out_indices:
                    maps.append(tokens[:, 1:].transpose(1, 2).unflatten(2, grid))
        return [x.contiguous().float() for x in maps]


def run_block(block: nn.Module, x: Tensor) -> Tensor:
    """Runs a block, (B, N, D) -> (B, N, D)."""
    x = x + _attention(block.attn, _norm(x, block.norm1.weight)) * block.ls1.gamma
    hidden = F.gelu(block.mlp.fc1(_norm(x, block.norm2.weight)))
    return x + block.mlp.fc2(hidden) * block.ls2.gamma


def _attention(attention: nn.Module, x: Tensor) -> Tensor:
    q, k, v = attention.qkv(x).chunk(3, dim=-1)
    q, k = _norm(q, attention.q_norm.weight), _norm(k, attention.k_norm.weight)
    q, k, v = (y.unflatten(-1, (attention.num_heads, -1)) for y in (q, k, v))
    return attention.proj(sdpa(q, k, v).flatten(2))


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    exact = x.float()
    exact = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + 1e-6)
    return weight * exact.to(x.dtype)


class OriginalTraining:
    """A training of the head as mmseg 0.30 and mmcv 1.7 run it: runner, hooks, loss and copies.

    Args:
        model: Our segmentor, whose backbone and head (its parameters, too) are shared.
        cfg: Config of the recipe.
        device: 'cuda' or 'cpu'.
        work_dir: Folder of the log.
    """

    def __init__(self, model: nn.Module, cfg: Config, device: str, work_dir: str):
        settings = copy.deepcopy(cfg)
        settings.model.type = 'EncoderDecoder'
        segmentor = build_network(settings, on_meta=True, trained=False)
        segmentor.backbone = OriginalBackbone(model.backbone)
        segmentor.decode_head = _with_loss_of_mmseg(model.decode_head)
        optimizer = torch.optim.AdamW(model.decode_head.parameters(), lr=4e-5, weight_decay=0.05)
        self.runner = mmcv_runner.IterBasedRunner(
            _OnDevice(segmentor, device), optimizer=optimizer, work_dir=work_dir,
            logger=get_root_logger(), max_iters=10 ** 5)
        self.runner.register_lr_hook(dict(policy='poly', power=1.0, min_lr=0.0, by_epoch=False,
                                          warmup='linear', warmup_iters=1500, warmup_ratio=1e-6))
        self.runner.register_hook(mmcv_runner.OptimizerHook(), priority='ABOVE_NORMAL')
        self.runner.register_hook(mmcv_runner.IterTimerHook(), priority='LOW')
        self.runner.register_hook(mmcv_runner.TextLoggerHook(interval=50, by_epoch=False),
                                  priority='VERY_LOW')
        self.runner.call_hook('before_run')
        self.runner.call_hook('before_epoch')

    def step(self, batches: mmcv_runner.IterLoader) -> None:
        """Takes one iteration."""
        self.runner.train(batches)


class _OnDevice(nn.Module):
    """A segmentor whose batches are copied to the device when its step begins, as mmcv does."""

    def __init__(self, module: nn.Module, device: str):
        super().__init__()
        self.module, self.device, self.output_device = module, device, None

    def train_step(self, batch: dict, optimizer: torch.optim.Optimizer, **kwargs) -> dict:
        """Runs the segmentor's step."""
        on_device = {name: container.data[0] for name, container in batch.items()}
        on_device = {name: value.to(self.device) if isinstance(value, Tensor) else value
                     for name, value in on_device.items()}
        return self.module.train_step(on_device, optimizer, **kwargs)


def _with_loss_of_mmseg(head: nn.Module) -> nn.Module:
    """Returns the same head with mmseg's loss, on logits that are resized to every pixel."""
    found = copy.copy(head)
    found.__class__ = type('HeadOfMMSeg', (type(head),), dict(losses=BaseDecodeHead.losses))
    return found
