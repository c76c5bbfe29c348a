"""Batch norms that one image a process leaves a single value per channel, which is no statistic.

The pyramid pooling of UPerNet and PSPNet, and the image pooling of ASPP, shrink a feature map to
1x1. PyTorch refuses to train on that in the first iteration, long after the weights were read. A
SyncBN counts the values of all processes, and is no problem in two or more.
"""
import torch
from mmcv import Config
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import InputError
from .batch import Batch
from .build import build_network
from .config import crop_of


class _SingleValue(Exception):
    """Ends a forward pass at a batch norm; its argument is the name."""


def check_batch_norm(cfg: Config, batch: Batch) -> None:
    """Checks that all batch norms have more than one value per channel in training.

    Args:
        cfg: Resolved config of the run.
        batch: Batch of a step.

    Raises:
        InputError: If one has not.
    """
    name = find_single_value(cfg, batch.ranks) if batch.samples == 1 else None
    if name is not None:
        raise InputError(
            f'one image a process (data.samples_per_gpu, or --total-batch by the processes): '
            f'{name} is a batch norm of 1x1 maps, which needs two values: take two images a '
            f'process, or {_way_out(cfg, batch.ranks)}')


def find_single_value(cfg: Config, ranks: int) -> str | None:
    """Returns the first batch norm that has one value per channel if a process takes one image.

    Runs the network on the meta device, without weights. A network that does not run there, or not
    on images of this size, is left to the training.

    Args:
        cfg: Resolved config of the run.
        ranks: Number of processes.
    """
    with torch.random.fork_rng(devices=[]):  # other backbones draw their weights
        model = build_network(cfg, on_meta=True).to('meta').train()
        for name, module in model.named_modules():
            if isinstance(module, _BatchNorm) and not (ranks > 1 and _is_synchronised(module)):
                module.register_forward_pre_hook(
                    lambda norm, inputs, name=name: _refuse_single_value(norm, inputs[0], name))
        images = torch.empty(1, 3, *crop_of(cfg), device='meta')
        labels = torch.empty(1, 1, *crop_of(cfg), dtype=torch.long, device='meta')
        try:
            model.forward_train(images, [{}], labels)
        except _SingleValue as found:
            return str(found)
        except Exception:  # e.g. a loss that looks at values, of which there are none here
            return None
    return None


def _refuse_single_value(norm: nn.Module, x: Tensor, name: str) -> None:
    if norm.training and x.numel() == x.shape[1]:
        raise _SingleValue(name)


def _is_synchronised(norm: nn.Module) -> bool:
    return 'SyncBatchNorm' in type(norm).__name__  # torch's, mmcv's, and ours for the CPU


def _way_out(cfg: Config, ranks: int) -> str:
    if ranks > 1:
        return "set type='SyncBN' in the norm_cfg of its head"
    synchronised = find_single_value(cfg, ranks=2) is None
    return ('start two processes or more, whose SyncBN counts the images of all'
            if synchronised else "start two processes or more with norm_cfg type='SyncBN'")
