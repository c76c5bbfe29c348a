"""How many blocks are recomputed, for predicted peaks that are made up."""
import pytest

from mmseg_custom.doctor.recomputation import MARGIN, choose_blocks, limit_of
from mmseg_custom.doctor.run_shape import RunShape
from mmseg_custom.units import GIB

BLOCKS = 20


def choose(limit: int | None, calls: list[int] | None = None):
    def peak(blocks: int) -> int:
        (calls if calls is not None else []).append(blocks)
        return (100 - blocks) * GIB
    return choose_blocks(peak, BLOCKS, limit)


@pytest.mark.parametrize('limit, blocks', [
    (100, 0), (99, 1), (98, 2), (97, 3), (90, 10), (82, 18), (81, 19), (80, 20), (50, 20)])
def test_the_least_number_that_fits(limit, blocks):
    calls = []
    chosen = choose(limit * GIB, calls)
    assert chosen.blocks == blocks
    assert blocks in chosen.peaks and len(chosen.peaks) in (2, 3)
    assert len(set(calls)) <= 8


def test_the_log_names_the_neighbours():
    assert str(choose(90 * GIB)) == (
        '10 of 20 blocks are recomputed: predicted peak 90.0 GiB of 90.0 GiB (91.0 with 9, '
        '89.0 with 11)')
    assert 'which is more: tools/doctor.py has ways out' in str(choose(GIB))


def test_all_blocks_where_no_memory_is_known():
    chosen = choose(None)
    assert chosen.blocks == BLOCKS and 'no memory of a GPU is known' in str(chosen)


def test_a_margin_is_left():
    shape = RunShape('cuda', 1, 2, (28, 28), memory=80 * GIB)
    assert limit_of(shape) == shape.usable - MARGIN
    assert limit_of(RunShape('cpu', 1, 2, (28, 28), memory=80 * GIB)) is None
