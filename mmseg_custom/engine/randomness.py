"""Randomness that needs no memory: every draw follows from the seed and from where it is drawn.

A sample's augmentation follows from (seed, position of the sample in the stream of images), an
iteration's dropout and drop path from (seed, iteration). No generator's state outlives a sample or
an iteration. A run that goes on therefore draws what the uninterrupted one would have drawn,
without any state in its checkpoint, on any number of ranks and loader workers, and whatever else
drew in between (an evaluation, a hook, a loader that was started anew).
"""
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmcv.runner import BaseRunner, Hook
from torch.utils.data import Dataset

SAMPLE, ITERATION = 0, 1  # kinds of places, so that sample 5 and iteration 5 differ


def seed_generators(*place: int) -> int:
    """Seeds Python's, numpy's and torch's CPU generator from where a run stands.

    Args:
        *place: Numbers of 0 and more: the run's seed, the kind of place, which one.

    Returns:
        The seed that torch's generator got, for those of other devices.
    """
    words = np.random.SeedSequence(place).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.default_generator.manual_seed(int(words[2]))
    return int(words[2])


class SeededSamples(Dataset):
    """A data set whose samples are asked for as (position in the stream, index).

    Args:
        dataset: Its pipeline draws from the global generators, as mmseg's steps do.
        seed: Of the run.
    """

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: tuple[int, int]) -> dict:
        """The sample, augmented as its position says; the caller's generators stay as they were."""
        position, index = place
        with _generators_kept():
            seed_generators(self.seed, SAMPLE, position)
            return self.dataset[index]


class SeedHook(Hook):
    """Seeds the generators before each iteration.

    Args:
        seed: Of the run; the rank is added to it where ranks are to draw differently.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def before_train_iter(self, runner: BaseRunner) -> None:
        """Seeds from the number of the iteration."""
        torch.cuda.manual_seed_all(seed_generators(self.seed, ITERATION, runner.iter))


@contextmanager
def _generators_kept() -> Iterator[None]:
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
