"""Checkpoint -> segmentor: opened, completed from its backbone's file, and loaded."""
import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from ..errors import InputError, hint
from ..layers.lora import is_adapter, native_name
from . import adapter_loading, deepspeed, provenance
from .averages import is_second, leave_aside
from .backbone_file import open_backbone_weights, open_places
from .changes import changed
from .checkpoint import Checkpoint, backbone_record_of, open_checkpoint
from .files import safe_load
from .integrity import finish_checks
from .keys import BACKBONE, is_part, summarize
from .lazy import LazyStateDict, compute
from .load import fill, resample
from .provenance import WeightsSource
from .recorded import compared_with


def load_segmentor(model: nn.Module, checkpoint: str | Checkpoint, *, backbone: str | None = None,
                   leave_out: Sequence[str] = (), verify: bool = True,
                   check_finite: bool = False, as_stored: bool = False,
                   logger: logging.Logger | None = None) -> Checkpoint:
    """Loads a checkpoint of either form into a segmentor.

    The model may be on the meta device, wholly or partly (``with torch.device('meta'):
    build_segmentor(...)``): then nothing is initialised in vain and nothing is copied. A small
    checkpoint whose backbone the model already holds is not read a second time.

    Args:
        model: Segmentor, unwrapped.
        checkpoint: Checkpoint, or its path. One whose tensors another model has taken for its own
            is opened again by its path.
        backbone: Backbone's file for a small checkpoint; default: the file that the model's
            backbone was loaded from, else the recorded one, there or beside the checkpoint.
        leave_out: Parts that keep the model's own values, e.g. 'decode_head.conv_seg' for another
            number of classes: names of parameters, or their beginnings up to a dot.
        verify: Whether to compare the SHA-256 of the backbone's file. One rank of a node is enough.
        check_finite: Whether to read every value and refuse NaN and infinity.
        as_stored: Whether trained weights of the backbone keep the dtype that they have in the
            file, as views of it, for a caller that converts them one by one afterwards.
        logger: Logger; default: 'mmseg'.

    Returns:
        The open checkpoint.

    Raises:
        InputError: If a file is missing, unreadable, does not fit, or is another backbone.
    """
    logger = logger or logging.getLogger('mmseg')
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = open_checkpoint(checkpoint)
    held = provenance.weights_source_of(getattr(model, 'backbone', None))
    opened = open_checkpoint(checkpoint.path) if checkpoint.is_taken else checkpoint
    leave_out = [part.rstrip('.') for part in leave_out]
    weights, source = complete(opened, backbone or (held.path if held else None), verify, logger)
    leave_aside(weights, model.state_dict(), logger)
    _leave_out(weights, leave_out, model)
    kept = set(leave_out)
    record = checkpoint.backbone_record
    if record and source and _holds(model.backbone, held, source, record):
        kept.update(BACKBONE + name for name in source.names)
        for name in source.names:
            del weights[BACKBONE + name]
    anew = adapter_loading.compare_with(model, weights, checkpoint.meta, logger)
    stored = {native_name(name) for name, p in model.named_parameters()
              if as_stored and p.requires_grad and name.startswith(BACKBONE)}
    # Batch counters are missing in files of torch before 0.4.1.
    with compared_with(checkpoint.meta, model):
        fill(model, weights, None, check_finite, as_stored=stored.__contains__,
             may_miss=lambda name: is_part(name, kept) or name.endswith('num_batches_tracked')
             or is_second(name)  # mmcv's hook has one of each frozen weight, too
             or anew and is_adapter(name))
    if hasattr(model, 'backbone'):
        provenance.set_weights_source(model.backbone, source)
    if anew:
        adapter_loading.start_adapters(model.backbone, model.backbone.adapt_folder, logger)
    _finish(model)
    logger.info('loaded %d tensors from %s%s%s', len(weights), checkpoint.path, checkpoint.note,
                f' and the backbone {source.path}' if source else '')
    return checkpoint


def read_checkpoint(path: str, *, backbone: str | None = None) -> dict:
    """Reads a checkpoint of either form as a classic one.

    For code that wants a dict, such as mmcv's ``load_checkpoint``; :func:`load_segmentor` needs
    less memory. Tensors of a small checkpoint's backbone are views of its file where the dtype is
    the recorded one, and converted copies elsewhere.

    Args:
        path: File or folder of the checkpoint, or a file of other weights.
        backbone: See :func:`load_segmentor`.

    Raises:
        InputError: As :func:`load_segmentor`, but for what depends on a model.
    """
    if os.path.isdir(path):
        checkpoint = open_checkpoint(path)
    else:
        content, mapped = safe_load(path)
        finish_checks()  # the caller gets copies of everything at once
        if backbone_record_of(content.get('meta')) is None and not deepspeed.is_deepspeed(content):
            adapter_loading.note_adapters(content, path)
            return content
        checkpoint = Checkpoint.of(path, content, mapped)
    weights, source = complete(checkpoint, backbone)
    state_dict = OrderedDict((name, tensor.read()) for name, tensor in weights.items())
    metadata = {} if source is None else dict(backbone=provenance.metadata_of(source))
    setattr(state_dict, '_metadata', OrderedDict(metadata))  # noqa: B010 - as torch names it
    if checkpoint.is_sharded:
        checkpoint = replace(checkpoint, optimizer=None)  # mmcv has no use for its lazy tensors
    content = checkpoint.to_dict(checkpoint.meta, state_dict)
    adapter_loading.note_adapters(content, path)
    return content


def complete(checkpoint: Checkpoint, backbone: str | None = None, verify: bool = True,
             logger: logging.Logger | None = None) -> tuple[LazyStateDict, WeightsSource | None]:
    """Joins a checkpoint's own tensors with those of its backbone's file, if it is a small one.

    Args:
        checkpoint: Checkpoint of either form.
        backbone: Backbone's file; default: see :func:`find_backbone`.
        verify: Whether to compare the SHA-256 of the backbone's file.
        logger: Logger; default: 'mmseg'.

    Returns:
        (all tensors, what comes from the backbone's file; None for a classic checkpoint).

    Raises:
        InputError: If the file is missing, unreadable, or another backbone.
    """
    weights, record = checkpoint.weights.copy(), checkpoint.backbone_record
    if record is None:
        return weights, None
    path = backbone or find_backbone(record, checkpoint.path)
    if verify:
        provenance.verify(record, path, checkpoint.path)
    places, tokens = record.get('places'), record.get('pos_embed_tokens')
    left_out, patch_size = tuple(record.get('left_out', ())), record.get('patch_size')
    base = (open_backbone_weights(path, logger) if places is None else
            open_places(path, {name: tuple(place) for name, place in places.items()}))
    base = changed(base, left_out, patch_size)
    taken = [name for name in base if BACKBONE + name not in weights]
    for name in taken:
        tensor = base[name]
        if name == 'pos_embed' and tokens not in (None, tensor.shape[1]):
            tensor = compute(lambda whole: resample(whole, tokens), [tensor],
                             (1, tokens, tensor.shape[2]), torch.float32)
        weights[BACKBONE + name] = tensor.to(provenance.recorded_dtype(record, name))
    weights.unknown += [BACKBONE + name for name in base.unknown]
    return weights, WeightsSource(os.path.abspath(path), tuple(taken), left_out, patch_size,
                                  places)


def find_backbone(record: dict, checkpoint: str) -> str:
    """Finds the file that a small checkpoint refers to: where it was, beside it, in pretrained/.

    Args:
        record: ``meta['backbone']`` of the checkpoint.
        checkpoint: Path of the checkpoint.

    Raises:
        InputError: If it is nowhere.
    """
    name = os.path.basename(record['path'])
    candidates = [record['path'],
                  os.path.join(os.path.dirname(os.path.abspath(checkpoint)), name),
                  os.path.join('pretrained', name)]
    for path in candidates:
        if os.path.exists(path):
            return path
    raise InputError(f'{checkpoint} holds what was trained on the frozen backbone '
                     f'{record["path"]}, which is not there (nor {candidates[1]}, nor '
                     f'{candidates[2]}): put the file there, or give its path')


def _holds(backbone: nn.Module, held: WeightsSource | None, source: WeightsSource,
           record: dict) -> bool:
    """Whether a backbone holds these tensors of this file already, frozen and in their dtype."""
    if held is None or held.path != source.path or not set(source.names).issubset(held.names):
        return False
    parameters = {native_name(name): p for name, p in backbone.named_parameters()}
    dtypes = provenance.dtypes_of(backbone)
    return all(not parameters[name].requires_grad and dtypes[name]
               == provenance.recorded_dtype(record, name) for name in source.names) and (
        'pos_embed' not in source.names
        or parameters['pos_embed'].shape[1] == record['pos_embed_tokens'])


def _leave_out(weights: LazyStateDict, parts: Sequence[str], model: nn.Module) -> None:
    """Removes the tensors of some parts; refuses a part that there is not."""
    here = list(model.state_dict())
    for part in parts:
        names = [name for name in weights if is_part(name, [part])]
        if not names and not any(is_part(name, [part]) for name in here):
            known = {'.'.join(name.split('.')[:count]) for name in here for count in (1, 2)}
            raise InputError(f'nothing in the model or in {weights.path} is called {part!r} or '
                             f'begins with it, which was to be left out{hint(part, sorted(known))};'
                             f' the file holds {summarize(weights)}')
        for name in names:
            del weights[name]


def _finish(model: nn.Module) -> None:
    """Gives counters that were not in the file a value; nothing else may be left on meta."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_meta and name.endswith('num_batches_tracked'):
            owner = model.get_submodule(name.rpartition('.')[0])
            owner.num_batches_tracked = torch.zeros((), dtype=torch.long)
        elif tensor.is_meta:
            raise InputError(f'{name} was left out, but the model was built without values of its '
                             'own (on the meta device)')
