"""Checkpoints of whole segmentors, in both forms, and safetensors of them.

    classic   {meta, state_dict, optimizer}: all tensors, in mmcv's form, which the original reads
    small     the same, without the tensors of a frozen backbone, which ``meta['backbone']`` refers
              to (see :mod:`.provenance`)

either in one file, or in a folder that all processes wrote (see :mod:`.sharded`). Reading them runs
nothing that is in them. The small form is completed from the backbone's file, which is verified
first.
"""
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..errors import InputError
from . import provenance
from .dcp_metadata import is_sharded_checkpoint
from .files import safe_load, sniff, tensors_of
from .keys import BACKBONE, DIALECTS, summarize
from .lazy import LazyStateDict
from .load import fill, open_backbone_weights, resample
from .provenance import WeightsSource
from .sharded import ShardedStateDict, open_sharded


def load_segmentor(model: nn.Module, path: str, *, backbone: str | None = None,
                   leave_out: Sequence[str] = (), verify: bool = True,
                   check_finite: bool = False, as_stored: bool = False,
                   logger: logging.Logger | None = None) -> dict:
    """Loads a checkpoint of either form into a segmentor.

    The model may be on the meta device, wholly or partly (``with torch.device('meta'):
    build_segmentor(...)``): then nothing is initialised in vain and nothing is copied. A small
    checkpoint whose backbone the model already holds is not read a second time.

    Args:
        model: The segmentor, unwrapped.
        path: The checkpoint.
        backbone: The backbone's file for a small checkpoint; default: the file that the model's
            backbone was loaded from, else the recorded one, here or beside the checkpoint.
        leave_out: Beginnings of names that keep the model's own values, e.g. 'decode_head.conv_seg'
            for another number of classes.
        verify: Whether to compare the SHA-256 of the backbone's file. One rank of a node is enough.
        check_finite: Also read every value, and refuse NaN and infinity.
        as_stored: Trained weights of the backbone take the dtype that they have in the file, and
            stay views of it: for what converts them part by part afterwards.
        logger: Default: the logger 'mmseg'.

    Returns:
        The checkpoint without its ``state_dict``: meta, and the optimizer's state if it has one.

    Raises:
        InputError: If a file is missing, unreadable, does not fit, or is another backbone.
    """
    logger = logger or logging.getLogger('mmseg')
    path = getattr(path, 'path', path)
    checkpoint = open_checkpoint(path)
    network = own_tensors(checkpoint, path)
    entry = entry_of(checkpoint)
    held = provenance.source_of(model.backbone) if hasattr(model, 'backbone') else None
    source = None
    if entry is not None:
        source_path = backbone or (held and held.path) or find_backbone(entry, path)
        if verify:
            provenance.verify(entry, source_path, path)
        source = complete(network, entry, source_path, logger)
    kept = _leave_out(network, leave_out, model)
    if source is not None and _holds(model.backbone, held, source, entry):
        kept |= {BACKBONE + name for name in source.names}
        for name in source.names:
            del network.parts[BACKBONE + name]
    trained = {name for name, p in model.named_parameters()
               if as_stored and p.requires_grad and name.startswith(BACKBONE)}
    fill(model, network, None, check_finite, may_miss=_may_miss(kept),
         as_stored=trained.__contains__)
    _finish(model)
    if hasattr(model, 'backbone'):
        provenance.remember(model.backbone, source)
    logger.info('loaded %d tensors from %s%s', len(network.parts), path,
                f' and the backbone {source.path}' if source else '')
    return {name: value for name, value in checkpoint.items() if name != 'state_dict'}


def read_checkpoint(path: str, *, backbone: str | None = None, verify: bool = True,
                    logger: logging.Logger | None = None) -> dict:
    """Reads a checkpoint of either form as a classic one.

    For code that wants a dict, such as mmcv's ``load_checkpoint``; :func:`load_segmentor` needs
    less memory. Tensors of a small checkpoint's backbone are views of its file where the dtype is
    the recorded one, and converted copies elsewhere.

    Args:
        path: The checkpoint.
        backbone: See :func:`load_segmentor`.
        verify: See :func:`load_segmentor`.
        logger: Default: the logger 'mmseg'.

    Raises:
        InputError: As :func:`load_segmentor`, but for what depends on a model.
    """
    checkpoint = open_checkpoint(path)
    entry = entry_of(checkpoint)
    if entry is None and not os.path.isdir(path):
        return checkpoint
    network = own_tensors(checkpoint, path)
    metadata = OrderedDict()
    if entry is not None:
        source_path = backbone or find_backbone(entry, path)
        if verify:
            provenance.verify(entry, source_path, path)
        source = complete(network, entry, source_path, logger)
        metadata['backbone'] = provenance.metadata_of(source)
    state_dict = OrderedDict((name, network.tensor(name)) for name in network.parts)
    state_dict._metadata = metadata
    return {**checkpoint, 'state_dict': state_dict}


def complete(network: LazyStateDict, entry: dict, backbone: str,
             logger: logging.Logger | None = None) -> WeightsSource:
    """Adds the tensors of a backbone's file to those of a small checkpoint.

    Args:
        network: The checkpoint's tensors; its own ones take precedence.
        entry: ``meta['backbone']`` of the checkpoint.
        backbone: The file, verified.
        logger: Default: the logger 'mmseg'.

    Returns:
        What was taken from the file.
    """
    base = open_backbone_weights(backbone, logger)
    taken = [name for name in base.parts if BACKBONE + name not in network.parts]
    for name in taken:
        parts, full = base.parts[name], BACKBONE + name
        if name == 'pos_embed' and parts[0].shape[1] != entry['pos_embed_tokens']:
            parts = (resample(parts[0], entry['pos_embed_tokens']),)
        elif name in base.mapped:
            network.mapped.add(full)
        network.parts[full] = parts
        network.dtypes[full] = provenance.recorded_dtype(entry, name)
    network.unknown += [BACKBONE + name for name in base.unknown]
    return WeightsSource(os.path.abspath(backbone), tuple(taken))


def find_backbone(entry: dict, checkpoint: str) -> str:
    """Finds the file that a small checkpoint refers to: where it was, beside it, in pretrained/.

    Raises:
        InputError: If it is nowhere.
    """
    name = os.path.basename(entry['path'])
    places = [entry['path'], os.path.join(os.path.dirname(os.path.abspath(checkpoint)), name),
              os.path.join('pretrained', name)]
    for place in places:
        if os.path.exists(place):
            return place
    raise InputError(f'{checkpoint} holds what was trained on the frozen backbone {entry["path"]}, '
                     f'which is not there (nor {places[1]}, nor {places[2]}): put the file there, '
                     'or give its path')


def open_checkpoint(path: str, optimizer: bool = False) -> dict:
    """Opens a file, or the folder of a sharded checkpoint; no tensor is read yet.

    The tensors of a file are views of it; those of a folder are on the meta device, and
    :func:`own_tensors` reads them.

    Args:
        path: Of either.
        optimizer: Also the optimizer's state of a folder, as lazy tensors.

    Raises:
        InputError: If it cannot be read.
    """
    if is_sharded_checkpoint(path):
        return open_sharded(path, optimizer)
    return safe_load(path)


def own_tensors(checkpoint: dict, path: str) -> LazyStateDict:
    """The tensors in the file itself, without the prefix of a data-parallel wrapper."""
    tensors = tensors_of(checkpoint, path)
    if all(name.startswith('module.') for name in tensors):
        tensors = {name.removeprefix('module.'): tensor for name, tensor in tensors.items()}
    if not any(name.startswith(('decode_head.', BACKBONE)) for name in tensors):
        way_out = ('give it as model.backbone.pretrained'
                   if any(dialect.anchor in tensors for dialect in DIALECTS)
                   else 'give the checkpoint of a segmentor')
        raise InputError(f'{path} is no checkpoint of a segmentor (it holds '
                         f'{summarize(tensors)}): {way_out}')
    if os.path.isdir(path):
        return ShardedStateDict(path)
    mapped = set() if sniff(path) == 'legacy' else set(tensors)
    return LazyStateDict(path, {name: (tensor,) for name, tensor in tensors.items()}, mapped)


def entry_of(checkpoint: dict) -> dict | None:
    """``meta['backbone']`` of a small checkpoint, None for a classic one."""
    meta = checkpoint.get('meta')
    entry = meta.get('backbone') if isinstance(meta, dict) else None
    return entry if isinstance(entry, dict) and 'sha256' in entry else None


def _holds(backbone: nn.Module, held: WeightsSource | None, source: WeightsSource,
           entry: dict) -> bool:
    """Whether a backbone holds these tensors of this file already, frozen and in their dtype."""
    if held is None or held.path != source.path or not set(source.names).issubset(held.names):
        return False
    parameters = dict(backbone.named_parameters())
    return all(not parameters[name].requires_grad and parameters[name].dtype
               == provenance.recorded_dtype(entry, name) for name in source.names) and (
        'pos_embed' not in source.names
        or parameters['pos_embed'].shape[1] == entry['pos_embed_tokens'])


def _leave_out(network: LazyStateDict, beginnings: Sequence[str], model: nn.Module) -> set[str]:
    """Takes tensors out of a network; returns their beginnings for :func:`_may_miss`."""
    here = list(model.state_dict())
    for beginning in beginnings:
        names = [name for name in network.parts if name.startswith(beginning)]
        if not names and not any(name.startswith(beginning) for name in here):
            raise InputError(f'nothing in the model or in {network.path} begins with '
                             f'{beginning!r}, which was to be left out; the file holds '
                             f'{summarize(network.parts)}')
        for name in names:
            del network.parts[name]
    return set(beginnings)


def _may_miss(kept: set[str]) -> Callable[[str], bool]:
    """What was left out, and the batch counters that torch before 0.4.1 did not have."""
    beginnings = tuple(kept)
    return lambda name: name.startswith(beginnings) or name.endswith('num_batches_tracked')


def _finish(model: nn.Module) -> None:
    """Gives counters that were not in the file a value; nothing else may be left on meta."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_meta and name.endswith('num_batches_tracked'):
            owner = model.get_submodule(name.rpartition('.')[0])
            owner.num_batches_tracked = torch.zeros((), dtype=torch.long)
        elif tensor.is_meta:
            raise InputError(f'{name} was left out, but the model was built without values of its '
                             'own (on the meta device)')
