"""The weights of a config: format, architecture, names, shapes, and values as time allows."""
import time
from collections.abc import Sequence
from functools import partial
from math import prod

import torch
from mmcv import Config
from torch import nn

from ..checkpoint import provenance
from ..checkpoint.adapter_loading import compare_with
from ..checkpoint.backbone_file import check_exists, open_weights_for
from ..checkpoint.checkpoint import open_checkpoint
from ..checkpoint.integrity import finish_checks
from ..checkpoint.keys import BACKBONE, is_part
from ..checkpoint.lazy import LazyStateDict
from ..checkpoint.load import check_fit, may_miss_beside_trunk
from ..checkpoint.provenance import bytes_of
from ..checkpoint.segmentor import find_backbone
from ..engine.build import build_network, explained_parts
from ..errors import InputError
from ..layers.lora import is_adapter
from ..models.backbone_options import backbone_option
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
    pretrained = backbone_option(cfg.model.backbone, 'pretrained')
    start = cfg.get('resume_from') or cfg.get('load_from')
    findings, figures = [], {}
    model = build_network(cfg, on_meta=True)
    end = time.monotonic() + seconds
    anew = [] if cfg.get('resume_from') else cfg.get('load_from_without') or []
    open_start = partial(_open_checkpoint, anew=anew, resumed=bool(cfg.get('resume_from')))
    for path, check in ((start, open_start), (pretrained, _open_backbone)):
        if path is None:
            continue
        try:
            weights, wrong = check(model, path)
            share, broken = _check_values(weights, end)
            finish_checks()
        except InputError as error:
            findings.append(fault(PART, str(error), 'nothing else of this file is checked'))
            continue
        findings += [*wrong, *broken]
        figures[path] = dict(bytes=bytes_of(path) if path == pretrained else None,
                             values_read=round(share, 3))
    if pretrained is None and start is None and backbone_option(
            cfg.model.backbone, 'freeze_vit'):
        findings.append(warning(
            PART, 'the backbone is frozen with random weights', 'set it, unless that is meant',
            'model.backbone.pretrained'))
    return findings, figures


def _open_backbone(model: nn.Module, path: str) -> tuple[LazyStateDict, list[Finding]]:
    """Checks a pretrained file; it is a warning where it holds more blocks than the network."""
    check_exists(path, getattr(model.backbone, 'weights_advice', None))
    if hasattr(model.backbone, 'open_weights'):
        weights, note = model.backbone.open_weights(path), ''
    else:
        weights, _, note = open_weights_for(model.backbone, path)
    check_fit(weights, model.backbone.state_dict(keep_vars=True), may_miss_beside_trunk(weights))
    return weights, [warning(PART, note, 'set it to that of the file, unless this is meant',
                             'model.backbone.depth')] if note else []


def _open_checkpoint(model: nn.Module, path: str, anew: Sequence[str] = (),
                     resumed: bool = False) -> tuple[LazyStateDict, list[Finding]]:
    """Checks a checkpoint, and the file that its frozen backbone is read from, if there is one.

    Args:
        model: Segmentor of the config.
        path: Path of the checkpoint.
        anew: Parts that are not taken from it.
        resumed: Whether a run is resumed from it.
    """
    checkpoint = open_checkpoint(path)
    record = checkpoint.backbone_record
    if record is not None:
        source = find_backbone(record, path)
        if bytes_of(source) != record['bytes']:
            provenance.verify(record, source, path)
    weights = checkpoint.weights.copy()
    for name in [name for name in weights if is_part(name, anew)]:
        del weights[name]
    start = compare_with(model, weights, checkpoint.meta)  # of the model's adapters at zero
    with explained_parts(checkpoint, resumed):
        check_fit(weights, model.state_dict(keep_vars=True),
                  lambda name: name.endswith('num_batches_tracked') or is_part(name, anew) or (
                      start if is_adapter(name) else
                      record is not None and name.startswith(BACKBONE)))
    return weights, []


def _check_values(weights: LazyStateDict, end: float) -> tuple[float, list[Finding]]:
    """Reads values until the time is over: small tensors first, then large ones of all depths."""
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
        elif tensor.ndim > 1 and not name.endswith('mask_token') and not tensor.any():
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
