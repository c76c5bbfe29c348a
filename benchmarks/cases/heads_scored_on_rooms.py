"""The heads of heads_scored.py on the rooms of transfer.py, with the backbone trained there.

Learning rates are chosen on other images than those that are scored.

    python -m benchmarks heads_scored_on_rooms --minutes 60
"""
from benchmarks.context import Context
from benchmarks.head_runs import ROOMS
from benchmarks.head_scores import score_heads
from benchmarks.registry import benchmark


@benchmark('Heads on a frozen tiny backbone that is pretrained: mIoU over 5 seeds', minutes=60,
           suite=())
def case(run: Context) -> None:
    """Trains and tests all heads on the rooms."""
    score_heads(ROOMS, run)
