"""Config and segmentor -> content of ``config.json`` of an exported one.

What is for training alone is left out; what has no place there is refused.
"""
import json
import os.path as osp
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmcv import Config
from mmseg.models.segmentors import EncoderDecoder
from torch import nn

from ...datasets.ground_truth import IGNORE_INDEX
from ...datasets.nesting import innermost_options
from ...deploy.build import BACKBONES, HEADS
from ...deploy.config import BACKBONE_FOLDER, FORMAT, FORMAT_VERSION
from ...errors import InputError
from ...layers.conv_module import is_of_torch
from ...models.backbones.frozen_vit import FrozenViT
from ...models.backbones.intern_vit import InternViT6B
from ...models.decode_heads.plain_mask_head import PlainMaskHead
from ...models.segmentors.encoder_decoder import InternViTSegmentor
from ...version import __version__
from ..build import compute_dtype, head_dtype
from ..class_facts import first_label
from .test_pipeline import preprocessing_of

# Options that are for training alone, or for reading files.
OF_TRAINING = {
    'backbone': ('pretrained', 'adapt', 'drop_path_rate', 'with_cp', 'unfreeze_pos_embed'),
    'decode_head': ('loss_decode', 'sampler', 'init_cfg')}


def describe(cfg: Config, model: nn.Module, classes: list[str],
             palette: np.ndarray) -> dict[str, Any]:
    """Returns the content of ``config.json``.

    Args:
        cfg: Config of the checkpoint.
        model: Its segmentor, as it is tested.
        classes: Names of the K classes.
        palette: Colours (K, 3).

    Raises:
        InputError: If something of it cannot be exported.
    """
    check_parts(model)
    test = innermost_options(cfg.data.test)[0]
    windows = {name: model.test_cfg[name] for name in ('mode', 'crop_size', 'stride',
                                                       'window_batch') if name in model.test_cfg}
    content = dict(
        format=FORMAT, format_version=FORMAT_VERSION, written_by=f'mmseg_custom {__version__}',
        backbone=_backbone(cfg.model.backbone, model.backbone),
        adapters=getattr(model.backbone, 'adapt_record', None),
        decode_head=_head(cfg.model.decode_head, model.decode_head), windows=windows,
        preprocessing=preprocessing_of(test['pipeline']), precision=dict(
            backbone=_name_of(compute_dtype(cfg, model)), heads=_name_of(head_dtype(cfg, model))),
        classes=classes, palette=np.asarray(palette).tolist(), first_label=first_label(cfg),
        ignore_index=test.get('ignore_index', IGNORE_INDEX))
    try:
        return json.loads(json.dumps(content))  # with lists in the places of tuples
    except TypeError as error:
        raise InputError(f'the config of the network holds more than plain values ({error}): '
                         'expected numbers, texts, lists and dicts') from error


def check_parts(model: nn.Module) -> None:
    """Checks that a segmentor has the parts that an exported one can have.

    Raises:
        InputError: Naming the part that it cannot.
    """
    if type(model) not in (InternViTSegmentor, EncoderDecoder):
        raise InputError(f"model.type='{type(model).__name__}' cannot be exported: expected "
                         'InternViTSegmentor or EncoderDecoder, whose labels follow from backbone '
                         'and decode_head alone')
    if getattr(model, 'neck', None) is not None:
        raise InputError('model.neck cannot be exported: expected a decode_head on the feature '
                         'maps of the backbone')
    for name, known in (('backbone', BACKBONES), ('decode_head', HEADS)):
        part = getattr(model, name)
        if type(part) is not known.get(type(part).__name__):
            raise InputError(f"model.{name}.type='{type(part).__name__}' cannot be exported: "
                             f'expected one of {", ".join(known)} of this package, which need no '
                             'other library; test others by tools/test.py, or export their graph '
                             "by mmseg's tools")


def _backbone(options: Mapping[str, Any], backbone: nn.Module) -> dict[str, Any]:
    """Returns the options of the backbone."""
    found = _without(options, backbone, 'backbone')
    if isinstance(backbone, FrozenViT):
        # What timm and transformers say of normalisation may change with their versions.
        found.update(own_mean=backbone.own_mean, own_std=backbone.own_std)
        if osp.isdir(found['name']):
            found['name'] = BACKBONE_FOLDER
    elif type(backbone) is InternViT6B:
        found['depth'] = blocks_read(backbone)
        if isinstance(found.get('use_flash_attn'), (list, tuple)):
            found['use_flash_attn'] = found['use_flash_attn'][:found['depth']]
        if options.get('adapt') and options.get('frozen_dtype'):
            found['freeze_vit'] = True  # Blocks beside adapters are frozen, and may have 8 bits.
    return found


def blocks_read(backbone: InternViT6B) -> int:
    """Returns the number of blocks that feature maps need; those behind them are not exported."""
    return max(backbone.out_indices) + 1


def _head(options: Mapping[str, Any], head: nn.Module) -> dict[str, Any]:
    """Returns the options of the decode head."""
    found = _without(options, head, 'decode_head')
    types = {name: found.get(name) for name in ('conv_cfg', 'norm_cfg', 'act_cfg')}
    if not is_of_torch(**types):
        raise InputError(f'model.decode_head has layers that mmcv alone can build ({types}): '
                         'expected those of PyTorch, such as SyncBN and ReLU')
    if not isinstance(head, PlainMaskHead):  # which has no such option
        found['loss_decode'] = None
    return found


def _without(options: Mapping[str, Any], part: nn.Module, name: str) -> dict[str, Any]:
    """Returns the options of a part of the network that matter in tests, and its class."""
    return {**{key: value for key, value in options.items() if key not in OF_TRAINING[name]},
            'type': type(part).__name__}


def _name_of(dtype: Any) -> str:
    return str(dtype).removeprefix('torch.')
