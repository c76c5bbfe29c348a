"""Opens the file of a backbone: of any form -> tensors under the names that the network has.

    file -> files.read_weights -> keys.find_network -> keys.to_native -> changes -> tensors

Nothing is read but shapes and dtypes: see :class:`.lazy.LazyStateDict`.
"""
import logging
import os
import re
from collections.abc import Iterable, Mapping

from torch import nn

from ..errors import InputError, some_of
from ..layers.quantized_linear import weight_of
from ..missing import look_around
from .adapter_record import refuse_adapters
from .changes import changed, describe_resampling
from .depth import left_aside_line, surplus_blocks
from .files import read_weights
from .keys import PYRAMID, check_dimensions, find_network, summarize, to_native
from .lazy import LazyStateDict, concatenate
from .provenance import Place, WeightsSource
from .releases import download_advice


def open_weights_for(backbone: nn.Module, path: str, logger: logging.Logger | None = None
                     ) -> tuple[LazyStateDict, WeightsSource, str]:
    """Opens a file of an InternViT as a backbone takes it: see :mod:`.changes`.

    Args:
        backbone: Backbone, on any device. What it leaves out of every file, and whether the patch
            embedding is resampled, its ``weights_changes`` say.
        path: File, as for :func:`.load.load_backbone`.
        logger: Logger; default: 'mmseg'.

    Returns:
        (weights, where they come from, a line on blocks that are left aside; '' if none are).

    Raises:
        InputError: If the file cannot be read, does not hold one InternViT, or has blocks at its
            end that are not whole.
    """
    logger = logger or logging.getLogger('mmseg')
    weights = open_backbone_weights(path, logger)
    changes = getattr(backbone, 'weights_changes', {})
    left_out, patch_size = changes.get('left_out', ()), changes.get('patch_size')
    if patch_size is not None:
        logger.info('%s: resampled bicubically: %s', path,
                    describe_resampling(weights, patch_size, backbone.pos_embed.shape[1]))
    weights = changed(weights, left_out, patch_size)
    surplus = surplus_blocks(weights, backbone.state_dict(keep_vars=True))
    note = left_aside_line(weights, surplus) if surplus else ''
    weights = changed(weights, surplus)
    source = WeightsSource(os.path.abspath(path), tuple(weights), (*left_out, *surplus), patch_size)
    return weights, source, note


def open_backbone_weights(path: str, logger: logging.Logger | None = None) -> LazyStateDict:
    """Opens a file and translates the names of the InternViT in it.

    Tensors around the network (heads, a language model) and parameters that no feature map needs
    are left aside with one log line each.

    Raises:
        InputError: If the file cannot be read, or does not hold one InternViT.
    """
    logger = logger or logging.getLogger('mmseg')
    weights = read_weights(path)
    refuse_adapters(weights, path)
    dialect, prefix = find_network(weights, path)
    inside = [name[len(prefix):] for name in weights if name.startswith(prefix)]
    around = [name for name in weights if not name.startswith(prefix)] + weights.not_opened
    unused = sorted(dialect.unused.intersection(inside))
    for what, names in (('beside the network', around), ('that no feature map needs', unused)):
        if names:
            logger.info('%s: left aside %d tensors %s: %s', path, len(names), what,
                        summarize(names))
    sources, unknown = to_native(dialect, set(inside).difference(unused))
    pyramid = [name for name in unknown if name.startswith(PYRAMID)]
    sources.update((name, (name,)) for name in pyramid)
    check_dimensions({name: weights[prefix + source].shape for name, names in sources.items()
                      for source in names}, path)
    _check_not_rounded([prefix + name for name in unknown], path)
    return LazyStateDict(
        path, {name: concatenate([weights[prefix + source] for source in names])
               for name, names in sources.items()},
        unknown=[name for name in unknown if name not in pyramid])


def _check_not_rounded(unknown: Iterable[str], path: str) -> None:
    """Refuses weights that were rounded to 8 bits, which the scales beside them show."""
    scale = next((name for name in unknown if weight_of(name) != name), None)
    if scale is not None:
        raise InputError(
            f'{path}: {weight_of(scale)} has scales beside it ({scale}): weights of 8 bits, as a '
            'run with model.backbone.frozen_dtype saves them, are no pretrained file; name the one '
            'that they were rounded from, or load the checkpoint as a whole (--load-from, '
            '--resume-from, tools/test.py) with the same frozen_dtype')


def open_places(path: str, places: Mapping[str, Place]) -> LazyStateDict:
    """Opens the tensors of a network that is no InternViT.

    Args:
        path: File or folder.
        places: Places of the tensors, by the names that they get.

    Raises:
        InputError: If the file cannot be read, or lacks one of them.
    """
    weights = read_weights(path)
    lacking = [source for source, _, _ in places.values() if source not in weights]
    if lacking:
        raise InputError(f'{path} lacks {some_of(lacking)}: expected the file that the backbone '
                         f'was loaded from; it holds {summarize(weights)}')
    return LazyStateDict(path, {
        name: weights[source] if count == 1 else weights[source].chunk(count)[part]
        for name, (source, part, count) in places.items()})


def check_exists(path: str, advice: str | None = None) -> None:
    """Checks that a pretrained file is there.

    Args:
        path: File or folder.
        advice: How it is downloaded; default: how that of an InternViT is.

    Raises:
        InputError: If it is not, or is an address.
    """
    if re.match(r'[a-z0-9+-]+://', str(path)):
        raise InputError(f'model.backbone.pretrained={str(path)!r} is an address: download the '
                         'file first and give its path')
    if not os.path.exists(path):
        raise InputError(
            f'pretrained file {path} does not exist' + look_around(
                str(path), f'{advice or download_advice(str(path))}, give its path as '
                'model.backbone.pretrained, or set model.backbone.pretrained=None to start from '
                'random weights'))
