"""Builds the segmentor of a test run; the loop over the data is in predict.py."""
import os.path as osp

import torch
from mmcv import Config
from torch import nn

from ..checkpoint import load_segmentor
from ..checkpoint.checkpoint import Checkpoint
from ..distributed.acceleration import accelerate
from ..distributed.launch import is_first_of_node
from ..distributed.parallelize import read_blocks
from ..distributed.precision import apply_precision
from ..errors import InputError
from ..logs import saying
from ..models.backbone_options import backbone_option
from .blame import reading
from .build import build_network, check_finite, compute_dtype, head_dtype
from .fast import log_fast
from .frozen_dtype import check_head_fits
from .run import Run


def build_test_model(run: Run, backbone: str | None = None) -> nn.Module:
    """Builds the segmentor of a test run, on the CPU.

    Args:
        run: Run with test data and, unless the untrained network is tested, a checkpoint.
        backbone: Backbone file, for a checkpoint without the backbone; default: the pretrained
            file of the config, or the file that the checkpoint records.

    Raises:
        InputError: If the checkpoint does not fit, or the network has another number of classes
            than the data set.
    """
    data = run.data['test']
    with saying(f'loading the weights of {run.checkpoint.path}' if run.checkpoint else
                'building the network'):
        model = load_model(run.cfg, run.checkpoint, run.device, len(data.CLASSES), backbone)
    if run.options.check_finite:
        check_finite(model)
    log_fast(run.cfg, run.engine, model, trained=False)
    accelerate(model, read_blocks(model), run.engine, run.device)
    meta = run.checkpoint.meta if run.checkpoint else {}
    if run.checkpoint:
        check_head_fits(model, meta)
    model.CLASSES = meta.get('CLASSES', data.CLASSES)
    model.PALETTE = meta.get('PALETTE', data.PALETTE)
    return model


def load_model(cfg: Config, checkpoint: Checkpoint | None, device: str, num_classes: int,
               backbone: str | None = None) -> nn.Module:
    """Builds a segmentor for testing, with the weights of a checkpoint.

    Args:
        cfg: Config; its pretrained file is only read if the checkpoint is without the backbone.
        checkpoint: Opened checkpoint; None for the untrained network of seed 0.
        device: Device that it will compute on, 'cuda' or 'cpu'.
        num_classes: Number of classes of the data.
        backbone: See :func:`build_test_model`.

    Raises:
        InputError: See :func:`build_test_model`.
    """
    if checkpoint is None:
        torch.manual_seed(0)
    model = build_network(cfg, on_meta=checkpoint is not None, trained=False)
    if checkpoint is None:
        with reading('model'):
            model.init_weights()
    model.requires_grad_(False)  # Nothing is trained, so no weight needs float32.
    apply_precision(model, compute_dtype(cfg, model), device, head_dtype=head_dtype(cfg, model))
    if checkpoint is not None:
        pretrained = backbone_option(cfg.model.get('backbone', {}), 'pretrained')
        if backbone is None and pretrained and osp.exists(pretrained):
            backbone = pretrained
        load_segmentor(model, checkpoint, backbone=backbone, verify=is_first_of_node())
    outputs = getattr(model, 'num_classes', None)
    if outputs == 1 and getattr(model, 'out_channels', None) == 1:
        outputs = 2  # its threshold tells two classes apart
    if outputs not in (None, num_classes):
        raise InputError(f'the network of the config has {outputs} classes, its data set has '
                         f'{num_classes}: set model.decode_head.num_classes or data.test to match')
    return model
