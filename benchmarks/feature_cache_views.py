"""What a fixed set of views costs in mIoU: linear probing on the demo data, cached and not.

    python tools/make_demo_data.py
    python benchmarks/feature_cache_views.py

Trains the tiny linear-probing recipe for some passes over the 160 demo images, uncached and from
caches of V views, and prints a Markdown table: the mIoU of each seed on the 40 validation images,
and the difference to uncached. A seed draws another backbone, head and order of images. Up to V
passes the crops are the same with and without a cache.
"""
import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECIPE = 'configs/tiny/linear_probing_tiny.py'
IMAGES, BATCH = 160, 4


def miou(seed: int, views: int | None, iterations: int, folder: Path) -> float:
    """The mIoU in percent of a run; ``views=None`` is without a cache."""
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
         str(seed), '--cfg-options', *options], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(done.stdout[-3000:])
    return 100 * json.loads((work_dir / 'best.json').read_text())['hook_msgs']['best_score']


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--views', type=int, nargs='+', default=[1, 4, 16])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--passes', type=int, default=20, help='over the images')
    args = parser.parse_args()
    iterations = args.passes * IMAGES // BATCH
    found = {views: [] for views in (*args.views, None)}
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            for views, values in found.items():
                values.append(miou(seed, views, iterations, Path(folder)))
                print(f'seed {seed}, views {views or "uncached"}: mIoU {values[-1]:.2f}',
                      file=sys.stderr, flush=True)
    plain = found[None]
    print(f'{args.passes} passes, {iterations} iterations, seeds '
          f'{", ".join(map(str, args.seeds))}\n\n| views | mIoU of each seed | mean | difference '
          'to uncached, each seed |\n|---|---|---|---|')
    for views, values in found.items():
        each = ', '.join(f'{value:.2f}' for value in values)
        less = ', '.join(f'{a - b:+.2f}' for a, b in zip(values, plain)) if views else ''
        print(f'| {views or "uncached"} | {each} | {sum(values) / len(values):.2f} | {less} |')


if __name__ == '__main__':
    main()
