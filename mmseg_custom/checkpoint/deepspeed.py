"""Checkpoints of DeepSpeed, which InternVL-MMDetSeg saves: their weights, and nothing else of them.

    iter_8000/
      global_step8000/
        mp_rank_00_model_states.pt            all weights in 16 bits, under ZeRO stages 1 and 2
        bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt     float32 weights and optimizer, in parts

DeepSpeed's ``zero_to_fp32.py`` merges the parts, by code that they hold, into a file of float32
weights. That file is read like any other.
"""
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, some_of

STATES = re.compile(r'mp_rank_\d+_model_states\.pt')
PARTITIONED = re.compile(r'zero_pp_rank_\d+_mp_rank_\d+_model_states\.pt')  # ZeRO stage 3
STEP, LATEST = 'global_step', 'latest'
# What DeepSpeed writes into a file; the rest is what the fork gives it, mmcv's metadata.
WRITTEN = frozenset([
    'module', 'buffer_names', 'optimizer', 'param_shapes', 'frozen_param_shapes',
    'frozen_param_fragments', 'shared_params', 'lr_scheduler', 'data_sampler', 'random_ltd',
    'sparse_tensor_module_names', 'csr_tensor_module_names', 'skipped_steps', 'global_steps',
    'global_samples', 'dp_world_size', 'mp_world_size', 'ds_config', 'ds_version'])
MARKS = ('ds_version', 'dp_world_size', 'ds_config')  # one of them is in every file
MERGE = 'merge it with the zero_to_fp32.py beside it or above it, and give the file that it writes'


class Unread:
    """Stands for an object of DeepSpeed in a file: nothing of it is read, no code of it run."""

    def __init__(self, *args: object):
        pass

    def __new__(cls, *args: object) -> 'Unread':
        """Drops the arguments."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Drops the state."""


def classes_in(path: str) -> list[str]:
    """Lists DeepSpeed's classes that a file of torch.save asks for."""
    return [name for name in torch.serialization.get_unsafe_globals_in_checkpoint(path)
            if name.startswith('deepspeed.')]


def find_states(folder: str, levels: int = 2) -> str | None:
    """Finds the file of the weights in a folder of DeepSpeed's.

    Args:
        folder: Folder of one iteration or of several, or the work dir of a run of the fork.
        levels: Number of levels of folders below this one that are looked into.

    Returns:
        Path of the file; None if the folder is none of DeepSpeed's.

    Raises:
        InputError: If the weights are partitioned, or it is not clear which iteration is meant.
    """
    names = sorted(os.listdir(folder))
    if found := list(filter(STATES.fullmatch, names)):
        if len(found) > 1:
            raise _split(folder)
        return os.path.join(folder, found[0])
    if found := list(filter(PARTITIONED.fullmatch, names)):
        raise _partitioned(os.path.join(folder, found[0]))
    steps = _folder_of_iteration(folder, names)
    if len(steps) > 1:
        raise InputError(f'{folder} holds checkpoints of {len(steps)} iterations '
                         f'({some_of(steps)}): give one of these folders')
    return find_states(os.path.join(folder, steps[0]), levels - 1) if steps and levels else None


def _folder_of_iteration(folder: str, names: Sequence[str]) -> list[str]:
    """Lists the folders of iterations in a folder, or the one that 'latest' says."""
    latest = os.path.join(folder, LATEST)
    if os.path.isdir(latest):  # The fork links the folder of its last iteration.
        return [LATEST]
    steps = [name for name in names if name.startswith(STEP)
             and os.path.isdir(os.path.join(folder, name))]
    if steps and os.path.isfile(latest):
        with open(latest, encoding='utf-8', errors='replace') as file:
            newest = file.read(1000).strip()
        return [newest] if newest in steps else steps
    return steps


def is_deepspeed(content: Mapping[str, Any]) -> bool:
    """Returns whether DeepSpeed has written the content of a file."""
    return any(mark in content for mark in MARKS)


def check_states(content: Mapping[str, Any], path: str) -> None:
    """Refuses files of DeepSpeed that do not hold all weights of a network.

    Args:
        content: Content of any file.
        path: Name of the file.

    Raises:
        InputError: Saying which file is to be given.
    """
    if not is_deepspeed(content):
        return
    module = content.get('module')
    if module is None and 'optimizer_state_dict' in content:
        raise InputError(f'{path} holds a part of the optimizer of a run with DeepSpeed: give '
                         'mp_rank_00_model_states.pt beside it, or merge the parts with '
                         'zero_to_fp32.py')
    if content.get('mp_world_size') not in (None, 1):
        raise _split(path)
    if isinstance(module, dict) and any(isinstance(tensor, Tensor) and not tensor.numel()
                                        for tensor in module.values()):
        raise _partitioned(path)


def metadata_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metadata that mmcv gave DeepSpeed to save.

    Its iteration becomes a part of ``deepspeed``, by which no run is resumed from it.
    """
    given = content.get('meta')
    meta = {name: value for name, value in (given if isinstance(given, dict) else content).items()
            if name not in WRITTEN and not isinstance(value, Unread)}
    record = dict(version=content.get('ds_version'), iter=meta.pop('iter', None))
    meta.pop('epoch', None)
    return {**meta, 'deepspeed': record}


def note_on(weights: Mapping[str, Any]) -> str:
    """Returns what is to be said of weights that were read from a file of DeepSpeed."""
    dtypes = sorted({str(tensor.dtype).removeprefix('torch.') for tensor in weights.values()
                     if tensor.dtype.is_floating_point})
    return (f' (of a run with DeepSpeed, as {" and ".join(dtypes)}; float32 weights and the '
            'optimizer in its *_optim_states.pt are not read)')


def _split(path: str) -> InputError:
    return InputError(f'{path} holds a part of a network that tensor parallelism has split: merge '
                      'the parts with DeepSpeed')


def _partitioned(path: str) -> InputError:
    return InputError(f'{path} holds a part of weights that ZeRO stage 3 has partitioned: {MERGE}')
