"""What heads take on feature maps that are there: parameters, operations and memory, counted.

A step runs on fake tensors from the feature maps on, as from a feature cache: the frozen blocks
are the same for all heads, and are left out. What else is trained belongs to the head's step, such
as UPerNet's feature pyramid and auxiliary head, or the blocks that EoMT tunes.
"""
from collections.abc import Callable
from dataclasses import dataclass

import torch
from mmcv import Config
from mmcv.cnn.utils import revert_sync_batchnorm
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmseg_custom.checkpoint.provenance import drop_blocks
from mmseg_custom.compat.feature_batches import batch_for
from mmseg_custom.distributed.options import Engine
from mmseg_custom.doctor.fake_step import MASKS
from mmseg_custom.doctor.memory import estimate
from mmseg_custom.doctor.memory_tracker import MemoryTracker
from mmseg_custom.doctor.run_shape import RunShape
from mmseg_custom.engine.build import build_network
from mmseg_custom.losses.mask_matching import assumed_masks

from .execution import ROOT

LINEAR, FCN, UPERNET, PLAIN_MASK, EOMT = 'linear', 'FCN', 'UPerNet', 'PlainMaskHead', 'EoMT'
HEADS = {LINEAR: 'linear', FCN: 'upernet', UPERNET: 'upernet', PLAIN_MASK: 'plain_mask',
         EOMT: 'eomt'}  # head -> start of the names of its files in configs/_base_/models
TUNED_BLOCKS = 4  # that EoMT's queries join
CACHED = torch.bfloat16


@dataclass(frozen=True)
class HeadCost:
    """Cost of a training step, from the frozen feature maps on.

    Attributes:
        parameters: Number of trained parameters.
        forward: Floating-point operations of the forward pass and the losses, for one crop.
        backward: Those of the backward pass.
        peak: Predicted peak of a GPU's memory in bytes, with weights, gradients and AdamW.
    """
    parameters: int
    forward: int
    backward: int
    peak: int

    @property
    def flops(self) -> int:
        """Floating-point operations of a step, for one crop."""
        return self.forward + self.backward


def config_of_head(head: str, size: str) -> Config:
    """Returns the config of a head over a frozen backbone; EoMT tunes its last blocks.

    Args:
        head: One of ``HEADS``.
        size: '6b', '300m' or 'tiny'.
    """
    cfg = Config.fromfile(str(ROOT / f'configs/_base_/models/{HEADS[head]}_intern_vit_{size}.py'))
    backbone = cfg.model.backbone
    backbone.update(pretrained=None, drop_path_rate=0.0)
    backbone.update(dict(train_last=TUNED_BLOCKS) if head == EOMT else dict(freeze_vit=True))
    if head == FCN:  # the auxiliary head of UPerNet alone, on the last of its maps
        backbone.update(with_fpn=False, out_indices=backbone.out_indices[-1:])
        cfg.model.decode_head = cfg.model.pop('auxiliary_head')
        cfg.model.decode_head.update(in_index=0, loss_decode=dict(
            cfg.model.decode_head.loss_decode, loss_weight=1.0))
    cfg.optimizer = dict(type='AdamW', lr=1e-4, weight_decay=0.05)
    return cfg


def cost_of_head(head: str, size: str, crops: int) -> HeadCost:
    """Counts a step of a head.

    Args:
        head: One of ``HEADS``.
        size: '6b', '300m' or 'tiny'.
        crops: Crops of the step whose memory is predicted.
    """
    cfg = config_of_head(head, size)
    model = trained_part(cfg)
    forward, backward = _count(model, cfg)
    shape = RunShape('cuda', 1, crops, crop_of(cfg), cached=CACHED, has_blocks=False)
    memory, = estimate(cfg, shape, Engine(type='single'), checkpointing=False)
    return HeadCost(sum(p.numel() for p in model.parameters() if p.requires_grad), forward,
                    backward, memory.peak)


def trained_part(cfg: Config) -> nn.Module:
    """Builds a segmentor without its frozen blocks, on the meta device."""
    model = revert_sync_batchnorm(build_network(cfg, on_meta=True))
    drop_blocks(model.backbone)
    return model.train()


def crop_of(cfg: Config) -> tuple[int, int]:
    """Returns height and width of a crop, in pixels."""
    return tuple(cfg.model.test_cfg.crop_size)


def batch_of(model: nn.Module, cfg: Config, crops: int,
             draw: Callable[..., torch.Tensor] = torch.empty) -> dict:
    """Returns a batch of feature maps and labels.

    Args:
        model: Segmentor.
        cfg: Its config.
        crops: Number of crops.
        draw: Makes a tensor of a shape.
    """
    height, width = crop_of(cfg)
    labels = torch.arange(height) * MASKS // height
    return batch_for(model, dict(
        feats=[draw(crops, *each) for each in
               model.backbone.frozen_feature_shapes(height, width)],
        gt_semantic_seg=labels[:, None].repeat(crops, 1, 1, width),
        img_metas=[dict(filename='crop')] * crops))


def loss_of(model: nn.Module, batch: dict) -> torch.Tensor:
    """Computes the sum of all losses of a batch."""
    losses = model(return_loss=True, **batch)
    return sum(value for name, value in losses.items() if 'loss' in name)


def _count(model: nn.Module, cfg: Config) -> tuple[int, int]:
    """Counts operations of a crop's forward pass with losses, and of its backward pass."""
    crops = 2  # a batch norm of UPerNet's pooled map takes more than one
    with FakeTensorMode(allow_non_fake_inputs=True), assumed_masks(MASKS):
        model.to_empty(device='cpu')
        with MemoryTracker() as tracker:
            loss = loss_of(model, batch_of(model, cfg, crops))
            forward = tracker.flops.total()
            loss.backward()
    return forward // crops, (tracker.flops.total() - forward) // crops
