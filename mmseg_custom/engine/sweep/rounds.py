"""Assigns heads to rounds: which are trained together, and from which iteration."""
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmseg.utils import get_root_logger

from ...checkpoint.work_dir import checkpoints_in, is_whole
from ...distributed.collectives import broadcast_from_rank0, gather_to_all
from ...distributed.memory import state_bytes, storage_of
from ...errors import InputError
from ...logs import log_details
from ...models.segmentors.batching import free_bytes
from ...units import format_bytes
from ..build import build_network
from .grid import Combination

FOR_ACTIVATIONS = 0.25  # share of the free memory; only one head at a time has activations


@dataclass(frozen=True)
class Round:
    """Heads that are trained on one pass over the stream of batches.

    Attributes:
        heads: Heads, each with the checkpoint that it is resumed from, or None.
        start: Number of iterations done.
    """
    heads: list[tuple[Combination, str | None]]
    start: int


def assign_rounds(found: Sequence[Combination], device: str, auto_resume: bool,
                  heads_at_once: int | None = None) -> list[Round]:
    """Assigns the heads that are not finished to rounds.

    The heads of an interrupted round have checkpoints of a common iteration and are resumed
    together from these; heads of later rounds start from the beginning.

    Args:
        found: All heads that are not finished.
        device: 'cuda' or 'cpu'; the backbone is there already.
        auto_resume: Whether to resume heads from the checkpoints in the work dir.
        heads_at_once: Largest number of heads in a round; default: as many as fit in memory.

    Raises:
        InputError: If a single head does not fit.
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
        for some in _split(heads, needed, room, heads_at_once):
            rounds.append(Round(some, start))
    _announce(found, rounds, needed, free, room)
    return rounds


def _checkpoints(folder: str) -> dict[int, str]:
    """Returns iteration -> path of its complete checkpoint."""
    return {number: path for number, path in checkpoints_in(folder)
            if path.endswith('.pth') and is_whole(path)}


def _split(heads: list, needed: dict[str, int], room: int, at_once: int | None) -> list[list]:
    """Splits a list of heads into parts whose states fit in memory."""
    parts: list[list] = []
    left = 0
    for head in heads:
        own = needed[head[0].name]
        if own > room:
            raise InputError(f'{head[0].name}: its weights, gradients and optimizer state take '
                             f'{format_bytes(own)}, and {format_bytes(room)} are left beside the '
                             'backbone: use a device with more memory, or a smaller head')
        if not parts or own > left or len(parts[-1]) == at_once:
            parts.append([])
            left = room
        parts[-1].append(head)
        left -= own
    return parts


def _announce(found: Sequence[Combination], rounds: list[Round], needed: dict[str, int],
              free: int, room: int) -> None:
    logger, heads = get_root_logger(), [f'  {n}: {format_bytes(b)}' for n, b in needed.items()]
    logger.info('sweep: %d head(s), which take %s of memory; %s are free, of which %s are for '
                'states of heads', len(found), format_bytes(sum(needed.values())),
                format_bytes(free), format_bytes(room))
    log_details('memory of the heads\n%s', '\n'.join(heads))
    if len(rounds) > 1:
        logger.info('sweep: the heads are trained in %d rounds, each with its own pass of the '
                    'backbone: %s', len(rounds), '; '.join(
                        f'{len(r.heads)} head(s) from iteration {r.start}' for r in rounds))


def _state_bytes(found: Sequence[Combination]) -> dict[str, int]:
    """Returns head -> bytes of its weights, gradients and optimizer state."""
    counted: dict[str, int] = {}
    needed = {}
    for one in found:
        model = one.cfg.model
        key = json.dumps([model.decode_head, model.get('auxiliary_head'), model.backbone],
                         sort_keys=True, default=str)
        if key not in counted:
            states = state_bytes(build_network(one.cfg, on_meta=True), 'single', 1,
                                 storage=storage_of(one.cfg.optimizer))
            counted[key] = states.master_weights + states.gradients + states.optimizer
        needed[one.name] = counted[key]
    return needed


def _free_bytes(device: str) -> int:
    """Returns the number of bytes that each rank can allocate: the minimum over the ranks."""
    free = free_bytes(torch.device(device))
    if device == 'cpu':  # The ranks of a node share its memory.
        free //= int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    return min(gather_to_all(free))
