"""Heads on a frozen tiny backbone: training runs over seeds, with a test run after each.

There are two tasks. That of the demo data has the recipes of configs/tiny, whose backbone has
random weights; its images have 18 classes. The rooms are those of transfer.py, with the backbone
that was trained on outdoor scenes there; they have ten. Iterations, images, crops and, by seed,
their order are the same for all heads.
"""
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from mmseg_custom.evaluation.bootstrap import Comparison, compare, iou, mean_over_classes
from mmseg_custom.evaluation.results import Results, read_results

from .context import Context
from .head_costs import LINEAR, PLAIN_MASK, UPERNET
from .intervals import Mean
from .tool_runs import run_tool
from .transfer import SEED_OF_RATES, Settings, prepare

DEMO, ROOMS = 'demo data, random weights', 'rooms, pretrained backbone'
CONFIGS = {
    DEMO: {LINEAR: 'configs/tiny/linear_probing_tiny.py',
           UPERNET: 'configs/tiny/head_tuning_tiny.py',
           PLAIN_MASK: 'configs/tiny/plain_mask_tiny.py'},
    ROOMS: {LINEAR: 'benchmarks/rooms_linear.py', UPERNET: 'benchmarks/rooms_upernet.py',
            PLAIN_MASK: 'benchmarks/rooms_plain_mask.py'}}
RATES = (1e-3, 3e-3, 1e-2, 3e-2)  # of which each head has its best
Areas = tuple[np.ndarray, np.ndarray]  # pixels of intersection and union, (N, K) each


@dataclass(frozen=True)
class Job:
    """A run that trains a head and tests it.

    Attributes:
        head: Name of the head.
        rate: Learning rate.
        seed: Seed of the head's first weights, of crops and of their order.
        settings: Further settings of the config.
    """
    head: str
    rate: float
    seed: int
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class HeadTask:
    """Data and a frozen backbone.

    Attributes:
        configs: Config by head.
        settings: Settings of all runs, by keys with dots.
        choosing: Those of the runs that choose a learning rate.
        iterations: Number of iterations of each run.
        device: 'cuda' or 'cpu'.
        rates: Learning rates that are tried.
    """
    configs: Mapping[str, str]
    settings: Settings
    choosing: Settings
    iterations: int
    device: str
    rates: Sequence[float] = RATES

    def choose_rates(self, heads: Iterable[str]) -> dict[str, dict[float, float]]:
        """Tries all learning rates with a seed for that alone; returns mIoU in percent by rate."""
        jobs = [Job(head, rate, SEED_OF_RATES, self.choosing)
                for head in heads for rate in self.rates]
        found: dict[str, dict[float, float]] = {}
        for job, results in zip(jobs, self.run(jobs)):
            found.setdefault(job.head, {})[job.rate] = miou(results.areas)
        return found

    def run(self, jobs: Iterable[Job]) -> list[Results]:
        """Runs jobs, several at a time; returns the results of their tests."""
        with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool:
            return list(pool.map(self._run, jobs))

    def _run(self, job: Job) -> Results:
        settings = {**self.settings, **job.settings, 'optimizer.lr': job.rate, **dict.fromkeys(
            ('runner.max_iters', 'checkpoint_config.interval'), self.iterations)}
        options = ['--device', self.device, '--cfg-options',
                   *(f'{key}={value}' for key, value in settings.items())]
        with tempfile.TemporaryDirectory() as folder:
            run_tool('tools/train.py', self.configs[job.head], '--no-validate', '--seed', job.seed,
                     '--work-dir', folder, *options)
            run_tool('tools/test.py', self.configs[job.head], f'{folder}/latest.pth', '--eval',
                     'mIoU', '--work-dir', folder, *options)
            return read_results(folder)


def task_of(name: str, run: Context, iterations: int) -> HeadTask:
    """Prepares a task.

    Args:
        name: ``DEMO`` or ``ROOMS``.
        run: The case.
        iterations: Number of iterations of each run.
    """
    if name == DEMO:
        run_tool('tools/make_demo_data.py')
        return HeadTask(CONFIGS[name], {}, {}, iterations, run.device)
    rooms = prepare(run)
    data = {f'data.{part}.description': rooms.rooms for part in ('train', 'val', 'test')}
    return HeadTask(CONFIGS[name], {**data, 'model.backbone.pretrained': rooms.backbone},
                    {'data.test.part': 'val'}, iterations, run.device)


def miou(areas: Areas) -> float:
    """Computes the mIoU in percent."""
    intersect, union = (each.sum(0) for each in areas)
    return 100 * float(mean_over_classes(iou(intersect, union)))


def mean_miou(runs: Sequence[Results]) -> Mean:
    """Computes the mean mIoU of runs with several seeds, with its interval."""
    return Mean.of([miou(each.areas) for each in runs])


def compare_heads(ours: Sequence[Results], others: Sequence[Results]) -> Comparison:
    """Compares two heads by the paired bootstrap over images.

    The pixels of an image are added up over the seeds, so that an image that is drawn comes with
    the predictions of all of them.

    Args:
        ours: Runs of one head, by seed.
        others: Those of the other with the same seeds.
    """
    def pooled(runs: Sequence[Results]) -> Areas:
        intersect, union = zip(*(each.areas for each in runs))
        return np.sum(intersect, axis=0), np.sum(union, axis=0)

    names = {tuple(each.images.names) for each in (*ours, *others)}
    if len(names) != 1:
        raise ValueError(f'tests of {len(names)} lists of images: expected one')
    return compare(pooled(others), pooled(ours), ours[0].ground_truth_areas)
