"""Config + checkpoint -> segmentor and loader of a test run; the loop itself is predict.py."""
import os.path as osp
from contextlib import nullcontext

import torch
from mmcv import Config
from mmcv.runner import get_dist_info
from mmseg.datasets import build_dataloader
from mmseg.models import build_segmentor
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..checkpoint import load_segmentor, open_checkpoint
from ..distributed.launch import is_first_of_node
from ..distributed.precision import apply_precision
from ..errors import InputError
from .build import build_on_meta, check_finite, compute_dtype
from .config import loader_options, without_pretrained
from .samples import Skipping, collate_views, leave_signals

UNTRAINED = 'none'


def build_test_loader(cfg: Config, dataset: Dataset, device: str, split: str,
                      skip_bad: bool = False) -> DataLoader:
    """The loader of 'val' or 'test': images in order, dealt out to the ranks.

    Args:
        cfg: With ``data``; ``data.test_dataloader=dict(samples_per_gpu=4)`` has images of any sizes
            share batches of windows.
        dataset: Of the split.
        device: 'cuda' or 'cpu', where it will be computed.
        split: 'val' or 'test'.
        skip_bad: Hand out a mark for what cannot be read, rather than raise an error.
    """
    _, world_size = get_dist_info()
    options = {'persistent_workers': False, **loader_options(cfg, split)}
    loader = build_dataloader(Skipping(dataset) if skip_bad else dataset, dist=world_size > 1,
                              shuffle=False, pin_memory=device == 'cuda', **options)
    loader.collate_fn = collate_views
    loader.worker_init_fn = leave_signals
    return loader


def load_model(cfg: Config, checkpoint: str, dataset: Dataset, device: str,
               backbone: str | None = None) -> nn.Module:
    """Builds a segmentor for testing, from a checkpoint alone.

    Args:
        cfg: Its config; pretrained files in it are not read.
        checkpoint: A segmentor's checkpoint, or 'none' for the untrained network of seed 0.
        dataset: Gives the classes where the checkpoint does not.
        device: 'cuda' or 'cpu', where it will compute.
        backbone: The backbone's file for a checkpoint without it; default: the recorded one, or
            the pretrained file of the config.

    Raises:
        InputError: If the checkpoint does not fit, or the network has another number of classes
            than the data set.
    """
    pretrained = without_pretrained(cfg)
    if backbone is None and pretrained and osp.exists(pretrained):
        backbone = pretrained
    cfg.model.train_cfg = None
    untrained, meta = checkpoint == UNTRAINED, {}
    if untrained:
        torch.manual_seed(0)
    with nullcontext() if untrained else build_on_meta(cfg):
        model = build_segmentor(cfg.model, test_cfg=cfg.get('test_cfg'))
    if untrained:
        model.init_weights()
    model.requires_grad_(False)  # nothing is trained: no weight needs float32
    dtype = compute_dtype(cfg, model)
    if dtype is not None:
        apply_precision(model, dtype, device)
    if not untrained:
        meta = load_segmentor(model, checkpoint, backbone=backbone,
                              verify=is_first_of_node()).meta
    outputs = getattr(model, 'num_classes', None)
    if outputs not in (None, len(dataset.CLASSES)):
        raise InputError(f'the network of the config has {outputs} classes, its data set has '
                         f'{len(dataset.CLASSES)}: set model.decode_head.num_classes or data.test '
                         'to match')
    if cfg.get('check_finite'):
        check_finite(model)
    model.CLASSES = meta.get('CLASSES', dataset.CLASSES)
    model.PALETTE = meta.get('PALETTE', dataset.PALETTE)
    return model


def check_classes(checkpoint: str, dataset: Dataset) -> None:
    """Refuses a checkpoint that was trained on other classes than those of the data set.

    Args:
        checkpoint: Its path; one that does not say its classes passes.
        dataset: To be tested on.

    Raises:
        InputError: With both numbers, and the first class that differs where they are equal.
    """
    if checkpoint == UNTRAINED:
        return
    meta = open_checkpoint(checkpoint).meta
    theirs, ours = ([str(name).strip().lower() for name in names or ()]
                    for names in (meta.get('CLASSES'), dataset.CLASSES))
    if not theirs or not ours or theirs == ours:
        return
    kind = type(dataset).__name__
    line = (f'checkpoint {checkpoint} has {len(theirs)} classes, the data set {kind} has '
            f'{len(ours)}')
    if len(theirs) == len(ours):
        number, (their, our) = next((i, pair) for i, pair in enumerate(zip(theirs, ours))
                                    if pair[0] != pair[1])
        line += f', but class {number} is {their!r} in the one and {our!r} in the other'
    raise InputError(f'{line}: test it on the data that it was trained for (data.test), or give a '
                     'checkpoint of these classes')
