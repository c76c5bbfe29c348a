import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from mmseg_custom.engine.randomness import (
    ITERATION,
    SAMPLE,
    SeededSamples,
    seed_generators,
    seed_process,
)
from mmseg_custom.errors import InputError


@pytest.mark.parametrize('seed', [-1, 2**32, 'x', 1.5, True, [3]])
def test_a_seed_is_a_number_that_all_generators_take(seed):
    with pytest.raises(InputError, match='expected a whole number from 0 to 4294967295'):
        seed_process(seed)
    assert seed_process(2**32 - 1) == 2**32 - 1


class Draws(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return index, random.random(), np.random.rand(), torch.rand(1).item()


def test_a_sample_follows_from_its_position_alone():
    samples = SeededSamples(Draws(), seed=7)
    first = samples[4, 1]
    random.random(), np.random.rand(), torch.rand(3)
    assert samples[4, 1] == first and len(samples) == 3
    others = [samples[5, 1], SeededSamples(Draws(), seed=8)[4, 1]]
    assert all(len(set(first) & set(other)) == 1 for other in others)  # the index


def test_the_generators_of_the_caller_are_undisturbed():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()
    samples = SeededSamples(Draws(), seed=7)
    seed_generators(1, ITERATION, 2)
    expected = draw()
    seed_generators(1, ITERATION, 2)
    samples[0, 0]
    assert draw() == expected


def test_places_are_not_mixed_up():
    drawn = set()
    for place in [(1, SAMPLE, 2), (1, ITERATION, 2), (2, ITERATION, 1), (1, ITERATION, 3)]:
        seed_generators(*place)
        drawn.add((random.random(), np.random.rand(), torch.rand(1).item()))
    assert len({value for draw in drawn for value in draw}) == 12
