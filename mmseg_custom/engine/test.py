"""Config + checkpoint -> predictions -> figures, files or pictures: one test run."""
import os.path as osp
import warnings
from contextlib import nullcontext

import torch
from mmcv import Config
from mmcv.runner import get_dist_info
from mmseg.apis import multi_gpu_test, single_gpu_test
from mmseg.datasets import build_dataloader
from mmseg.models import build_segmentor
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..checkpoint import load_segmentor
from ..distributed.launch import is_first_of_node
from ..distributed.parallelize import wrap_alone
from ..distributed.precision import apply_precision
from .build import build_on_meta, check_finite, compute_dtype
from .config import loader_options, without_pretrained

UNTRAINED = 'none'


def build_test_loader(cfg: Config, dataset: Dataset, device: str, split: str) -> DataLoader:
    """The loader of 'val' or 'test': one image at a time, in order, dealt out to the ranks."""
    _, world_size = get_dist_info()
    options = {'persistent_workers': False, **loader_options(cfg, split)}
    return build_dataloader(dataset, dist=world_size > 1, shuffle=False,
                            pin_memory=device == 'cuda', **options)


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
                              verify=is_first_of_node()).get('meta') or {}
    if cfg.get('check_finite'):
        check_finite(model)
    model.CLASSES = meta.get('CLASSES', dataset.CLASSES)
    model.PALETTE = meta.get('PALETTE', dataset.PALETTE)
    return model


def predict(model: nn.Module, loader: DataLoader, device: str, *, pre_eval: bool = False,
            format_args: dict | None = None, show: bool = False, show_dir: str | None = None,
            opacity: float = 0.5) -> list | None:
    """Runs a model over a data set, on all ranks.

    Args:
        model: From :func:`load_model`.
        loader: From :func:`build_test_loader`.
        device: 'cuda' or 'cpu'.
        pre_eval: Return the areas of each image that the metrics need, instead of label maps.
        format_args: Write the results as files with these options of ``format_results``.
        show: Show each picture in a window (one process).
        show_dir: Write painted pictures there (one process).
        opacity: Of the paint, in (0, 1].

    Returns:
        One result an image in the order of the data set; None on ranks other than 0.
    """
    model = wrap_alone(model, device).eval()
    _, world_size = get_dist_info()
    formatting = dict(format_only=format_args is not None, format_args=format_args or {})
    if world_size > 1:
        if show or show_dir:
            warnings.warn('--show and --show-dir paint in one process only: skipped', stacklevel=2)
        return multi_gpu_test(model, loader, pre_eval=pre_eval, **formatting)
    return single_gpu_test(model, loader, show, show_dir, False, opacity, pre_eval=pre_eval,
                           **formatting)
