"""Checkpoints of another program, whose optimizer numbers the parameters otherwise.

As a script, on several ranks: ``foreign_optimizer.py CHECKPOINT ENGINE`` loads it into a segmentor
under an engine and checks every moment.
"""
import os
import sys
import zlib

import torch
import torch.distributed as dist
from mmcv.runner import build_optimizer, save_checkpoint
from torch import nn
from torch.distributed.tensor import DTensor

import mmseg_custom  # noqa: F401 - registers, before mmseg

from mmseg.models import build_segmentor  # isort: skip
from helpers.tiny_networks import segmentor_config

from mmseg_custom.checkpoint import load_optimizer, open_checkpoint
from mmseg_custom.distributed.options import Engine
from mmseg_custom.distributed.parallelize import parallelize
from mmseg_custom.distributed.precision import apply_precision

ONE_GROUP = dict(type='AdamW', lr=1e-3, weight_decay=0.05)
LAYER_DECAY = dict(ONE_GROUP, constructor='CustomLayerDecayOptimizerConstructor',
                   paramwise_cfg=dict(num_layers=4, layer_decay_rate=0.9))
BY_PARAMETER = dict(ONE_GROUP, paramwise_cfg=dict(norm_decay_mult=0.0))


def segmentor() -> nn.Module:
    """A linear segmentor whose weights are all trained, in float32."""
    model = build_segmentor(segmentor_config(freeze_vit=False))
    apply_precision(model, torch.float32, 'cpu')
    return model


def moment_of(name: str) -> float:
    """The value of a parameter's moments, which tells it from all others."""
    return zlib.crc32(name.encode()) / 2**32


def write_foreign(path: str, config: dict, named: bool = True) -> None:
    """Writes what mmcv writes for the original code, whose attention registers proj before q_norm.

    Args:
        path: File to write.
        config: Config of the optimizer.
        named: Whether groups of layer decay keep their ``param_names``.
    """
    model = segmentor()
    for block in model.backbone.blocks:
        for name in ('q_norm', 'k_norm'):
            block.attn._modules[name] = block.attn._modules.pop(name)
    optimizer = build_optimizer(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        optimizer.state[parameter]['exp_avg'].fill_(moment_of(name))
    if not named:
        for group in optimizer.param_groups:
            group.pop('param_names', None)
    save_checkpoint(model, path, optimizer, meta=dict(iter=1, epoch=1))


def check_moments(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Checks that each parameter has its own moments."""
    for name, parameter in model.named_parameters():
        moments = optimizer.state[parameter]['exp_avg']
        moments = moments.full_tensor() if isinstance(moments, DTensor) else moments
        assert moments.shape == parameter.shape
        torch.testing.assert_close(moments, torch.full_like(moments, moment_of(name)), msg=name)


def main(path: str, engine: str) -> None:
    """Loads the checkpoint in each process of a group."""
    ranks, rank = int(os.environ['WORLD_SIZE']), int(os.environ['RANK'])
    dist.init_process_group('gloo', world_size=ranks, rank=rank)
    model = parallelize(segmentor(), 'cpu', Engine.of(dict(type=engine)))
    optimizer = build_optimizer(model, LAYER_DECAY)
    load_optimizer(optimizer, open_checkpoint(path), model.module)
    check_moments(optimizer, model.module)
    dist.destroy_process_group()


if __name__ == '__main__':
    main(*sys.argv[1:])
