"""The weights of a config: form, architecture, names, shapes, and as many values as time allows."""
import copy
import time
from math import prod

import torch
from mmcv import Config
from mmseg.models import build_segmentor
from torch import nn

from ..checkpoint import provenance
from ..checkpoint.checkpoint import open_checkpoint
from ..checkpoint.keys import BACKBONE
from ..checkpoint.lazy import LazyStateDict
from ..checkpoint.load import check_fit, may_miss_pyramid, open_backbone_weights
from ..checkpoint.provenance import bytes_of
from ..checkpoint.segmentor import find_backbone
from ..engine.build import build_on_meta
from ..errors import InputError
from .findings import Finding, fault, warning

PART = 'weights'
SMALL = 1 << 20  # elements; smaller tensors are read first, and they are the most telling


def check_weights(cfg: Config, seconds: float = 15) -> tuple[list[Finding], dict]:
    """Looks at the pretrained file, or at the checkpoint that the run starts from.

    Args:
        cfg: The config.
        seconds: To spend on reading values at most, about.

    Returns:
        (findings, figures: the files, their bytes, and the share of the values that was read).
    """
    cfg = copy.deepcopy(cfg)  # Config.copy shares what is inside
    pretrained = cfg.model.backbone.get('pretrained')
    start = cfg.get('resume_from') or cfg.get('load_from')
    findings, figures = [], {}
    model = build_network(cfg)
    end = time.monotonic() + seconds
    for path, check in ((start, _open_checkpoint), (pretrained, _open_backbone)):
        if path is None:
            continue
        try:
            share, wrong = _check_values(check(model, path), end)
        except InputError as error:
            findings.append(fault(PART, str(error), 'nothing else of this file is checked'))
            continue
        findings += wrong
        figures[path] = dict(bytes=bytes_of(path) if path == pretrained else None,
                             values_read=round(share, 3))
    if pretrained is None and start is None and cfg.model.backbone.get('freeze_vit'):
        findings.append(warning(
            PART, 'the backbone is frozen with random weights', 'set it, unless that is meant',
            'model.backbone.pretrained'))
    return findings, figures


def build_network(cfg: Config) -> nn.Module:
    """Builds the segmentor without memory or files; changes the config that it gets."""
    cfg.model.pretrained = cfg.model.backbone.pretrained = None
    with build_on_meta(cfg):
        return build_segmentor(cfg.model, train_cfg=cfg.get('train_cfg'),
                               test_cfg=cfg.get('test_cfg'))


def _open_backbone(model: nn.Module, path: str) -> LazyStateDict:
    weights = open_backbone_weights(path)
    check_fit(weights, model.backbone.state_dict(keep_vars=True), may_miss_pyramid(weights))
    return weights


def _open_checkpoint(model: nn.Module, path: str) -> LazyStateDict:
    """A checkpoint may leave its backbone to the backbone's own file."""
    checkpoint = open_checkpoint(path)
    record = checkpoint.backbone_record
    if record is not None:
        source = find_backbone(record, path)
        if bytes_of(source) != record['bytes']:
            provenance.verify(record, source, path)
    check_fit(checkpoint.weights, model.state_dict(keep_vars=True),
              lambda name: name.endswith('num_batches_tracked') or (
                  record is not None and name.startswith(BACKBONE)))
    return checkpoint.weights


def _check_values(weights: LazyStateDict, end: float) -> tuple[float, list[Finding]]:
    """Reads values until the time is over: small tensors first, then large ones, spread out."""
    sizes = {name: prod(tensor.shape) for name, tensor in weights.items()}
    large = [name for name in sizes if sizes[name] > SMALL]
    spread = [name for step in range(7) for name in large[step::7]]
    order = [name for name in sizes if sizes[name] <= SMALL] + spread
    read, broken, empty = 0, [], []
    for name in order:
        if time.monotonic() > end:
            break
        tensor = weights[name].read()
        if tensor.is_floating_point() and not (
                torch.isfinite(tensor.sum(dtype=torch.float32)) or torch.isfinite(tensor).all()):
            broken.append(name)
        elif tensor.ndim > 1 and not tensor.any():
            empty.append(name)
        read += sizes[name]
        weights[name].release()
    findings = []
    if broken:
        findings.append(fault(PART, f'{weights.path} holds NaN or infinity there', 'the file is '
                              'damaged, or its training diverged: fetch it again', broken))
    if empty:
        findings.append(fault(PART, f'{weights.path} holds nothing but zeros there',
                              'the file is damaged: fetch it again', empty))
    return read / max(sum(sizes.values()), 1), findings
