"""Stateless random numbers: they depend only on the seed and on where in a run they are drawn.

The augmentation of a sample depends on (seed, position of the sample in the stream of images), the
dropout and drop path of an iteration on (seed, iteration). No generator state outlives a sample or
an iteration. A resumed run therefore draws what the uninterrupted one would have drawn, without
any state in its checkpoint, on any number of ranks and loader workers, and whatever else draws
random numbers in between (an evaluation, a hook, a restarted loader).
"""
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmcv.runner import BaseRunner, Hook, get_dist_info
from torch.utils.data import Dataset

from ..distributed.collectives import broadcast_from_rank0
from ..errors import InputError
from ..logs import log_details

MOST_SEEDS = 2**32  # numpy takes no more
SAMPLE, ITERATION = 0, 1  # kinds of seeds, so that sample 5 and iteration 5 differ


def seed_process(seed: int | None, diff_seed: bool = False) -> int:
    """Seeds all generators of this process at the start of a run.

    Args:
        seed: Seed of the run; None chooses one, the same on all ranks.
        diff_seed: Whether to add the rank to the seed of the generators.

    Returns:
        Seed that the ranks share.

    Raises:
        InputError: If it is no seed of all generators.
    """
    rank, world_size = get_dist_info()
    if seed is not None and not (
            type(seed) is int and 0 <= seed and seed + diff_seed * (world_size - 1) < MOST_SEEDS):
        raise InputError(f'seed {seed!r}: expected a whole number from 0 to {MOST_SEEDS - 1}')
    if seed is None:
        seed = broadcast_from_rank0(int(np.random.SeedSequence().generate_state(1)[0]) % 2**31)
    own = seed + rank if diff_seed else seed
    random.seed(own)
    np.random.seed(own)
    torch.manual_seed(own)
    log_details('seed of this process: %d', own)
    return seed


def seed_generators(*key: int) -> int:
    """Seeds Python's, numpy's and torch's CPU generator from a position in a run.

    Args:
        *key: Non-negative numbers: seed of the run, kind of the seed, position.

    Returns:
        Seed of torch's generator, for the generators of other devices.
    """
    words = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.default_generator.manual_seed(int(words[2]))
    return int(words[2])


class SeededSamples(Dataset):
    """Data set that is indexed by (position in the stream, index of the image).

    Args:
        dataset: Data set whose pipeline draws from the global generators, as mmseg's steps do.
        seed: Seed of the run.
    """

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        """Returns the sample, augmented for its position; the generators keep their state."""
        position, index = key
        with _generators_kept():
            seed_generators(self.seed, SAMPLE, position)
            return self.dataset[index]


class SeedHook(Hook):
    """Seeds the generators before each iteration.

    Args:
        seed: Seed of this rank.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def before_train_iter(self, runner: BaseRunner) -> None:
        """Seeds the generators from the seed and the number of the iteration."""
        seed = seed_generators(self.seed, ITERATION, runner.iter)
        if torch.cuda.is_initialized():  # else torch keeps each call, and where it came from
            torch.cuda.manual_seed_all(seed)


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Restores the state of Python's, numpy's and torch's CPU generator."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
