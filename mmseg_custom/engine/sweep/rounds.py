"""Which heads are trained together, and from which iteration on."""
import copy
import json
import os
import os.path as osp
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from mmcv.runner import get_dist_info
from mmseg.models import build_segmentor
from mmseg.utils import get_root_logger

from ...checkpoint.work_dir import is_whole
from ...distributed.collectives import broadcast_from_rank0
from ...distributed.memory import state_bytes, storage_of
from ...errors import InputError
from ...models.segmentors.batching import free_bytes
from .grid import Combination

FOR_ACTIVATIONS = 0.25  # of the free memory; one head at a time has any


@dataclass(frozen=True)
class Round:
    """Heads that are trained on one pass over the stream of batches.

    Attributes:
        heads: Each with the checkpoint that it goes on from.
        start: Iterations that they have done.
    """
    heads: list[tuple[Combination, str | None]]
    start: int


def plan(found: Sequence[Combination], device: str, auto_resume: bool,
         heads_at_once: int | None = None) -> list[Round]:
    """Deals the heads that are not finished out to rounds.

    Heads stand where their checkpoints are; those of a killed round have one of a common iteration
    and go on together, those of later rounds start.

    Args:
        found: All heads.
        device: 'cuda' or 'cpu', which holds the backbone already.
        auto_resume: Go on from what is in the work dir; else all heads start anew.
        heads_at_once: At most so many in a round; default: what fits in memory.

    Raises:
        InputError: If one head alone does not fit.
    """
    saved = broadcast_from_rank0([_checkpoints(one.cfg.work_dir) if auto_resume else {}
                                  for one in found])
    common = set.intersection(*(set(s) for s in saved if s)) if any(saved) else set()
    groups: dict[int, list] = {}
    for one, checkpoints in zip(found, saved):
        start = max(common or checkpoints, default=0) if checkpoints else 0
        groups.setdefault(start, []).append((one, checkpoints.get(start)))
    needed = _state_bytes(found)
    free = _free_bytes(device)
    room = int(free * (1 - FOR_ACTIVATIONS))
    rounds = []
    for start, heads in sorted(groups.items(), reverse=True):
        for some in _deal(heads, needed, room, heads_at_once):
            rounds.append(Round(some, start))
    _announce(found, rounds, needed, free, room)
    return rounds


def _checkpoints(folder: str) -> dict[int, str]:
    """Iteration -> the checkpoint of it that was written to its end."""
    names = os.listdir(folder) if osp.isdir(folder) else []
    numbers = {name: re.fullmatch(r'iter_(\d+)\.pth', name) for name in names}
    paths = {int(number.group(1)): osp.join(folder, name)
             for name, number in numbers.items() if number}
    return {number: path for number, path in paths.items() if is_whole(path)}


def _deal(heads: list, needed: dict[str, int], room: int, at_once: int | None) -> list[list]:
    """Cuts a list of heads so that the states of each part fit."""
    parts, left = [], 0
    for head in heads:
        own = needed[head[0].name]
        if own > room:
            raise InputError(f'{head[0].name}: its weights, gradients and optimizer state take '
                             f'{_text(own)}, and {_text(room)} are left beside the backbone: use a '
                             'device with more memory, or a smaller head')
        if not parts or own > left or len(parts[-1]) == at_once:
            parts.append([])
            left = room
        parts[-1].append(head)
        left -= own
    return parts


def _announce(found: Sequence[Combination], rounds: list[Round], needed: dict[str, int],
              free: int, room: int) -> None:
    logger = get_root_logger()
    logger.info('sweep: %d head(s), which take %s of memory; %s are free, of which %s are for '
                'states of heads\n%s', len(found), _text(sum(needed.values())), _text(free),
                _text(room), '\n'.join(f'  {name}: {_text(size)}' for name, size in needed.items()))
    if len(rounds) > 1:
        logger.info('sweep: the heads go in %d rounds, each a pass of the backbone of its own: %s',
                    len(rounds), '; '.join(
                        f'{len(r.heads)} head(s) from iteration {r.start}' for r in rounds))


def _state_bytes(found: Sequence[Combination]) -> dict[str, int]:
    """Head -> bytes of its weights, gradients and the optimizer's state."""
    counted: dict[str, int] = {}
    needed = {}
    for one in found:
        model = one.cfg.model
        key = json.dumps([model.decode_head, model.get('auxiliary_head'), model.backbone],
                         sort_keys=True, default=str)
        if key not in counted:
            counted[key] = _states_of(one)
        needed[one.name] = counted[key]
    return needed


def _states_of(combination: Combination) -> int:
    options = copy.deepcopy(combination.cfg.model)
    options.backbone.update(pretrained=None)
    with torch.device('meta'):
        model = build_segmentor(options)
    states = state_bytes(model, 'single', 1, storage=storage_of(combination.cfg.optimizer))
    return states.master_weights + states.gradients + states.optimizer


def _free_bytes(device: str) -> int:
    """What a rank may allocate: the least of all ranks."""
    free = free_bytes(torch.device(device))
    if device == 'cpu':  # which the ranks of a node share
        free //= int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    if get_dist_info()[1] > 1:
        every = [None] * dist.get_world_size()
        dist.all_gather_object(every, free)
        free = min(every)
    return free


def _text(size: int) -> str:
    return f'{size / 2**30:.1f} GiB' if size >= 2**30 else f'{size / 2**20:.1f} MiB'
