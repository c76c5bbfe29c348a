"""Linear head, UPerNet and PlainMaskHead on the demo data: mIoU over five seeds.

The recipes are those of configs/tiny, whose frozen backbone has random weights. All heads have the
same iterations and images, and each has the best of the same learning rates, with a seed that is
used for that alone. Intervals of means are 95 % over seeds (Student's t). The difference of
PlainMaskHead and UPerNet is that of the paired bootstrap over images, whose pixels are added up
over the seeds.

    python -m benchmarks heads_scored --minutes 60
"""
from benchmarks.context import Context
from benchmarks.head_runs import DEMO
from benchmarks.head_scores import score_heads
from benchmarks.registry import benchmark


@benchmark('Heads on a frozen tiny backbone of random weights: mIoU over 5 seeds', minutes=60,
           suite=())
def case(run: Context) -> None:
    """Trains and tests all heads on the demo data."""
    score_heads(DEMO, run)
