"""What a fixed set of views costs in mIoU: linear probing on the demo data, cached and not.

Trains the tiny linear-probing recipe for some passes over the 160 demo images
(`python tools/make_demo_data.py` draws them), uncached and from caches of V views. A row has the
mIoU of each seed on the 40 validation images. A seed draws another backbone, head and order of
images. Up to V passes the crops are the same with and without a cache.
"""
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.context import Context
from benchmarks.execution import ROOT
from benchmarks.registry import benchmark

RECIPE = 'configs/tiny/linear_probing_tiny.py'
IMAGES, BATCH, PASSES = 160, 4, 20
VIEWS, SEEDS = (1, 4, 16), (0, 1, 2)


def miou(run: Context, seed: int, views: int | None, iterations: int, folder: Path) -> float:
    """Trains; returns the mIoU in percent. ``views=None`` is without a cache."""
    options = [f'{key}={value}' for key, value in {
        'runner.max_iters': iterations, 'evaluation.interval': iterations,
        'checkpoint_config.interval': iterations, 'data.samples_per_gpu': BATCH,
        'data.workers_per_gpu': 0, 'data.persistent_workers': False, 'log_config.interval': 100,
    }.items()]
    if views is not None:
        options += [f'feature_cache.dir={folder}/cache', f'feature_cache.views={views}',
                    f'feature_cache.seed={seed}']
    work_dir = folder / 'run'
    shutil.rmtree(work_dir, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, 'tools/train.py', RECIPE, '--work-dir', str(work_dir), '--seed',
         str(seed), '--device', run.device, '--cfg-options', *options], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(done.stdout[-3000:])
    return 100 * json.loads((work_dir / 'best.json').read_text())['hook_msgs']['best_score']


@benchmark('mIoU of linear probing from caches of 1, 4 and 16 views', minutes=60, suite=())
def case(run: Context) -> None:
    """Trains, uncached and from caches."""
    if not (ROOT / 'data/ade_demo').exists():
        run.skip('data/ade_demo is not there: python tools/make_demo_data.py')
    iterations = 2 if run.tiny else PASSES * IMAGES // BATCH
    found: dict[int | None, list[float]] = {views: [] for views in (*VIEWS, None)}
    for seed in SEEDS[:1] if run.tiny else SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            for views, values in found.items():
                values.append(miou(run, seed, views, iterations, Path(folder)))
                print(f'  seed {seed}, views {views or "uncached"}: {values[-1]:.2f}', flush=True)
    for views in VIEWS:
        run.row(f'mIoU from {views} views, seeds {SEEDS}', '%', found[views],
                {'without a cache': found[None]}, higher_is_better=True)
