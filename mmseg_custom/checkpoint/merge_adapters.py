"""Checkpoint with adapters -> merged one, or a folder of peft's; such a folder -> merged backbone.

See :mod:`.adapters` for the arithmetic, and :mod:`.peft_folder` for the folder.
"""
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import InputError, some_of
from ..layers.lora import is_adapter
from ..targets import try_target
from . import provenance
from .adapter_loading import check_base
from .adapters import Adapter, RoundingLoss, adapters_in, merged_weights
from .averages import leave_aside
from .backbone_file import check_exists, open_backbone_weights
from .checkpoint import Checkpoint
from .convert import progress_of
from .export import write_pth, write_safetensors
from .integrity import finish_checks
from .keys import BACKBONE, PYRAMID
from .lazy import LazyStateDict
from .peft_folder import AdapterFolder, read_adapter_folder, write_adapter_folder
from .provenance import WeightsSource
from .segmentor import find_backbone

OWN = ('backbone', 'adapt', 'frozen_dtype')  # metadata of what a merged checkpoint is without


def is_folder_name(target: str) -> bool:
    """Whether a name is that of a folder to write: without an ending, or ending in a slash."""
    return target.endswith('/') or not os.path.splitext(target)[1]


def merge_checkpoint(checkpoint: Checkpoint, weights: LazyStateDict, adapt: Mapping[str, Any],
                     loss: RoundingLoss) -> tuple[Checkpoint, LazyStateDict]:
    """Merges the adapters of a checkpoint, without its optimizer's state, which is of them.

    Args:
        checkpoint: Checkpoint with adapters.
        weights: Its weights with those of its backbone's file.
        adapt: Record of the adapters.
        loss: Object that counts what rounding to bfloat16 would lose.

    Returns:
        (what is left of the checkpoint, with ``meta['merged']``; its weights, those of layers with
        adapters in float32).
    """
    rounded = checkpoint.meta.get('frozen_dtype')
    weights = weights.copy()
    leave_aside(weights, ())
    merged = merged_weights(weights, adapters_in(weights, adapt['alpha'] / adapt['r']),
                            rounded and rounded['dtype'], loss)
    about = {name: checkpoint.meta[name] for name in OWN if name in checkpoint.meta}
    meta = {name: value for name, value in checkpoint.meta.items() if name not in OWN}
    return replace(checkpoint, meta={**meta, 'merged': about}, optimizer=None), merged


def write_folder_of(checkpoint: Checkpoint, adapt: Mapping[str, Any], target: str,
                    show_progress: bool = False) -> None:
    """Writes the adapters of a checkpoint as a folder that peft loads.

    Args:
        checkpoint: Checkpoint with adapters; its backbone's file is not needed.
        adapt: Record of the adapters.
        target: Folder to write; must not exist.
        show_progress: Whether to draw a progress bar on the terminal.

    Raises:
        InputError: If they are for other weights than those of their backbone's file.
        SaveError: If the folder cannot be written.
    """
    adapters = {name.removeprefix(BACKBONE): adapter for name, adapter in adapters_in(
        checkpoint.weights, adapt['alpha'] / adapt['r']).items()}
    rounded = checkpoint.meta.get('frozen_dtype')
    _check_base_is_the_file(checkpoint)
    tensors = [tensor for name, tensor in checkpoint.weights.items() if is_adapter(name)
               for _ in range(3 if '.qkv.lora_A' in name else 1)]  # A of q, of k, and of v
    try_target(target.rstrip('/'), sum(tensor.nbytes for tensor in tensors), make_folder=False)
    finish_checks()
    given = AdapterFolder(checkpoint.path, adapters, bool(adapt['use_dora']),
                          checkpoint.backbone_record, rounded and rounded['dtype'])
    with progress_of(tensors, show_progress) as bar:
        write_adapter_folder(target.rstrip('/'), given, adapt['alpha'], bar.update)


def _check_base_is_the_file(checkpoint: Checkpoint) -> None:
    """Refuses a checkpoint whose network differs from its backbone's file in more than adapters.

    A folder has adapters alone: on the file they would give other maps, and nothing would say so.
    """
    others = [name.removeprefix(BACKBONE) for name in checkpoint.weights
              if name.startswith(BACKBONE) and not is_adapter(name)]
    others = [name for name in others if not name.startswith(PYRAMID)]
    if checkpoint.backbone_record is not None and others:
        raise InputError(
            f'{checkpoint.path} also holds {some_of(others)}, which differ from those of '
            f'{checkpoint.backbone_record["path"]}: a folder has adapters alone, which would give '
            'other feature maps there: merge everything into one file, with OUT ending in .pth')


def merge_folder(folder: str, target: str, backbone: str | None = None, *,
                 show_progress: bool = False) -> RoundingLoss:
    """Merges a folder of peft's into a backbone: one file with native names.

    Args:
        folder: Folder of adapters.
        target: File to write, .pth or .safetensors; must not exist.
        backbone: File of the backbone; default: the one that the folder says it was trained on.
        show_progress: Whether to draw a progress bar on the terminal.

    Returns:
        What rounding the merged weights to bfloat16 would lose.

    Raises:
        InputError: If a file cannot be read, or the backbone is another one.
        SaveError: If the target cannot be written.
    """
    given = read_adapter_folder(folder)
    if backbone is None:
        if given.base is None:
            raise InputError(f'{folder} does not say which backbone its adapters are of: give '
                             '--backbone FILE')
        backbone = find_backbone(given.base, folder)
    check_exists(backbone)
    weights = open_backbone_weights(backbone)
    check_base(given, WeightsSource(os.path.abspath(backbone), tuple(weights)))
    _check_fit(given.adapters, weights, folder)
    if given.base is not None:
        for name, tensor in weights.items():
            weights[name] = tensor.to(provenance.recorded_dtype(given.base, name))
    loss = RoundingLoss()
    merged = merged_weights(weights, given.adapters, given.frozen_dtype, loss)
    try_target(target, sum(tensor.nbytes for tensor in merged.values()), make_folder=False)
    finish_checks()
    with progress_of(merged.values(), show_progress) as bar:
        write = write_safetensors if target.endswith('.safetensors') else write_pth
        write(target, dict(merged), bar.update)
    return loss


def _check_fit(adapters: Mapping[str, Adapter], weights: LazyStateDict, folder: str) -> None:
    """Refuses adapters for other layers than those of a backbone."""
    others = [name for name in adapters if f'{name}.weight' not in weights]
    others = others or [name for name, adapter in adapters.items() if weights[
        f'{name}.weight'].shape != (adapter.b.shape[0], adapter.a.shape[1])]
    if others:
        raise InputError(f'{folder} holds adapters of {some_of(others)} that do not fit '
                         f'{weights.path}, which has other layers: give the backbone that they '
                         'were trained on')
