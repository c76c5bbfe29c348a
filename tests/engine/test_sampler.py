from itertools import islice

import pytest

from mmseg_custom.engine.sampler import InfiniteSampler


def take(count: int, **options) -> list[int]:
    return [index for _, index in islice(InfiniteSampler(7, seed=3, **options), count)]


def test_each_pass_is_a_permutation():
    stream = take(21)
    passes = [stream[i:i + 7] for i in (0, 7, 14)]
    assert all(sorted(p) == list(range(7)) for p in passes)
    assert passes[0] != passes[1]


@pytest.mark.parametrize('ranks', [2, 3, 10])
def test_ranks_share_one_stream(ranks):
    parts = [take(5, rank=r, world_size=ranks) for r in range(ranks)]
    assert [i for row in zip(*parts) for i in row] == take(5 * ranks)


@pytest.mark.parametrize('start', [0, 3, 8])
def test_start_skips(start):
    assert take(6, rank=1, world_size=2, start=start) == take(20, rank=1, world_size=2)[start:][:6]


@pytest.mark.parametrize('ranks, start', [(1, 0), (2, 0), (2, 5), (3, 4)])
def test_positions_are_those_of_the_one_stream(ranks, start):
    whole = list(islice(InfiniteSampler(7, seed=3), 40))
    for rank in range(ranks):
        part = islice(InfiniteSampler(7, seed=3, rank=rank, world_size=ranks, start=start), 6)
        assert list(part) == whole[start * ranks + rank::ranks][:6]
