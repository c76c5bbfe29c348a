"""The weights of a config: format, architecture, names, shapes, and values as time allows."""
import copy
import time

import torch
from mmcv import Config
from mmseg.models import build_segmentor
from torch import nn

from ..checkpoint import provenance
from ..checkpoint.keys import BACKBONE, PYRAMID
from ..checkpoint.lazy import LazyStateDict
from ..checkpoint.load import check_architecture, check_names, check_tensors, open_backbone_weights
from ..checkpoint.provenance import bytes_of
from ..checkpoint.segmentor import entry_of, find_backbone, open_checkpoint, own_tensors
from ..engine.build import build_on_meta
from ..errors import InputError
from .findings import Finding, fault, warning

PART = 'weights'
SMALL = 1 << 20  # elements; smaller tensors are read first, since they cover the most layers


def check_weights(cfg: Config, seconds: float = 15) -> tuple[list[Finding], dict]:
    """Checks the pretrained file, and the checkpoint that the run starts from.

    Args:
        cfg: Config of the run.
        seconds: Approximate time limit for reading values.

    Returns:
        (findings, figures: bytes of each file, and the share of its values that was read).
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
            weights = check(model, path)
            share, wrong = _check_values(weights, end)
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
    """Builds the segmentor without memory or files; changes the config that it is given."""
    cfg.model.pretrained = cfg.model.backbone.pretrained = None
    with build_on_meta(cfg):
        return build_segmentor(cfg.model, train_cfg=cfg.get('train_cfg'),
                               test_cfg=cfg.get('test_cfg'))


def _open_backbone(model: nn.Module, path: str) -> LazyStateDict:
    weights = open_backbone_weights(path)
    has_pyramid = any(name.startswith(PYRAMID) for name in weights.parts)
    _check(weights, model.backbone,
           lambda name: name.startswith(PYRAMID) and not has_pyramid)
    return weights


def _open_checkpoint(model: nn.Module, path: str) -> LazyStateDict:
    """Checks a checkpoint, and the file that its frozen backbone is read from, if there is one."""
    checkpoint = open_checkpoint(path)
    weights = own_tensors(checkpoint, path)
    entry = entry_of(checkpoint)
    if entry is not None:
        source = find_backbone(entry, path)
        if bytes_of(source) != entry['bytes']:
            provenance.verify(entry, source, path)
    _check(weights, model, lambda name: name.endswith('num_batches_tracked') or (
        entry is not None and name.startswith(BACKBONE)))
    return weights


def _check(weights: LazyStateDict, model: nn.Module, may_miss) -> None:
    targets = model.state_dict(keep_vars=True)
    if any(name.endswith('patch_embed.proj.weight') for name in weights.parts):
        check_architecture(weights, targets)
    check_names(weights, targets, may_miss)
    check_tensors(weights, targets)


def _check_values(weights: LazyStateDict, end: float) -> tuple[float, list[Finding]]:
    """Reads values until the time is over: small tensors first, then large ones of all depths."""
    sizes = {name: sum(part.numel() for part in parts) for name, parts in weights.parts.items()}
    large = [name for name in sizes if sizes[name] > SMALL]
    spread = [name for step in range(7) for name in large[step::7]]
    order = [name for name in sizes if sizes[name] <= SMALL] + spread
    read, broken, empty = 0, [], []
    for name in order:
        if time.monotonic() > end:
            break
        tensors = weights.parts[name]
        finite = all(torch.isfinite(t.sum(dtype=torch.float32)) or torch.isfinite(t).all()
                     for t in tensors if t.is_floating_point())
        if not finite:
            broken.append(name)
        elif tensors[0].ndim > 1 and not any(t.any() for t in tensors):
            empty.append(name)
        read += sizes[name]
        weights.release(name)
    findings = []
    if broken:
        findings.append(fault(PART, f'{weights.path} holds NaN or infinity there', 'the file is '
                              'damaged, or its training diverged: fetch it again', broken))
    if empty:
        findings.append(fault(PART, f'{weights.path} holds nothing but zeros there',
                              'the file is damaged: fetch it again', empty))
    return read / max(sum(sizes.values()), 1), findings
