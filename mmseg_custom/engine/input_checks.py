"""What backbones and heads take in, compared with what they are given: images and feature maps."""
import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from mmcv import Config
from mmseg.models.builder import HEADS

from ..datasets.nesting import named_pipelines
from ..errors import InputError
from ..models.backbone_options import backbone_option, traits_of
from ..plugins import is_known
from .config import heads_of


def check_inputs(cfg: Config) -> None:
    """Compares the feature maps that mmseg's heads read with those of a backbone.

    Raises:
        InputError: If a head reads one that there is not, or takes another width.
    """
    backbone = cfg.model.get('backbone') or {}
    if not traits_of(backbone).is_ours or cfg.model.get('neck'):
        return
    width = backbone_option(backbone, 'embed_dim')
    blocks = backbone_option(backbone, 'out_indices')
    for key, head in heads_of(cfg.model):
        if not is_known(HEADS.get(head.get('type', ''))) or 'in_channels' not in head:
            continue
        read, widths = _maps_read(head), head['in_channels']
        for index in read if isinstance(read, (list, tuple)) else [read]:
            if not -len(blocks) <= index < len(blocks):
                raise InputError(
                    f'{key}.in_index={read}: the backbone gives {len(blocks)} feature map(s), '
                    f'0 to {len(blocks) - 1} (model.backbone.out_indices={list(blocks)})')
        if isinstance(widths, (list, tuple)) != isinstance(read, (list, tuple)) or isinstance(
                widths, (list, tuple)) and len(widths) != len(read):
            raise InputError(f'{key}.in_channels={widths} and in_index={read}: expected as many of '
                             f'the one as of the other, each in_channels {width}')
        for channels in widths if isinstance(widths, (list, tuple)) else [widths]:
            if channels != width:
                raise InputError(f'{key}.in_channels={widths}: the backbone gives feature maps of '
                                 f'{width} channels (model.backbone.embed_dim)')


def _maps_read(head: Mapping[str, Any]) -> Any:
    """Returns ``in_index`` of a head: of its config, or the default of its class."""
    if head.get('blocks') == 'backbone':  # It reads tokens, and in_index has no effect.
        return -1
    own = inspect.signature(HEADS.get(head['type'])).parameters.get('in_index')
    return head.get('in_index', -1 if own is None else own.default)


def check_normalization(cfg: Config, splits: Collection[str]) -> None:
    """Compares the normalisation of the pipelines with the one that the backbone counts on.

    Raises:
        InputError: If a pipeline normalises by something else.
    """
    backbone = cfg.model.get('backbone') or {}
    if not traits_of(backbone).renormalizes:
        return
    wanted = {name: list(backbone_option(backbone, name)) for name in ('mean', 'std')}
    for split in splits:
        for name, pipeline in named_pipelines(cfg.data.get(split)):
            for step in _steps_in(pipeline):
                if step.get('type') != 'Normalize':
                    continue
                found = {key: list(step[key]) for key in wanted if key in step}
                if found != wanted or not step.get('to_rgb', True):
                    raise InputError(
                        f'data.{split}.{name} normalises by mean={found.get("mean")}, '
                        f'std={found.get("std")}, to_rgb={step.get("to_rgb", True)}, and the '
                        f'backbone takes images to have mean={wanted["mean"]}, '
                        f'std={wanted["std"]} in RGB: set model.backbone.mean and std to those of '
                        'the pipeline')


def _steps_in(pipeline: Any) -> Iterator[dict]:
    """Yields the steps of a pipeline, and those within other steps."""
    for step in pipeline:
        yield step
        yield from _steps_in(step.get('transforms') or [])
