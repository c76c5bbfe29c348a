"""The top of the page: the figures of a run, or what one run gains over another."""
import os.path as osp

import numpy as np

from ...evaluation.bootstrap import Comparison
from ...evaluation.confusion import image_scores
from ...evaluation.figures import means_of
from ...evaluation.results import Results
from .text import escape, number, percent, points, size

_BINS = 20
_EXPLAINED = dict(
    mIoU='intersection over union, mean over classes', mAcc='recall, mean over classes',
    aAcc='share of pixels that are right', mDice='Dice score, mean over classes',
    mFscore='F1 score, mean over classes', mPrecision='precision, mean over classes',
    mRecall='recall, mean over classes', mBIoU='boundary IoU, mean over classes')


def one(results: Results) -> str:
    """The section on one run."""
    run = results.run
    name = osp.splitext(osp.basename(run['config']))[0]
    interval = run.get('interval')
    ends = f'95 % interval {percent(interval["low"], 2)} – {percent(interval["high"], 2)}' if (
        interval) else 'no interval: one image'
    others = ''.join(
        f'<div class="tile"><dt title="{_EXPLAINED.get(key, "")}">{escape(key)}</dt>'
        f'<dd>{percent(value, 2)}</dd></div>'
        for key, value in means_of(run['metric']).items() if key != 'mIoU')
    return f"""<header>
<p class="over">Test of {number(run['images'])} images, {escape(run['date'])}</p>
<h1>{escape(name)}</h1>
</header>
<section class="figures" aria-label="Figures in percent">
<dl class="tiles">
<div class="tile main"><dt title="{_EXPLAINED['mIoU']}">mIoU, percent</dt>
<dd>{percent(run['metric']['mIoU'], 2)}</dd><dd class="note">{ends}</dd></div>
{others}</dl>
{_histogram(results)}
</section>
<details><summary>Where these figures come from</summary>
{_origin(results)}</details>"""


def two(a: Results, b: Results, found: Comparison) -> str:
    """The section on two runs."""
    low, high = found.miou_range
    sure = low > 0 or high < 0
    verdict = ('B is better' if found.miou > 0 else 'B is worse') if sure else (
        'No difference that these images can show')
    rows = []
    for key, value in means_of(a.run['metric']).items():
        other = b.run['metric'].get(key)
        if other is not None:
            rows.append(f'<tr><th scope="row" title="{_EXPLAINED.get(key, "")}">{escape(key)}</th>'
                        f'<td class="number">{percent(value, 2)}</td>'
                        f'<td class="number">{percent(other, 2)}</td>'
                        f'<td class="number">{points(other - value)}</td></tr>')
    better, worse = (int((found.significant & side).sum())
                     for side in (found.iou > 0, found.iou < 0))
    return f"""<header>
<p class="over">Comparison on {number(a.run['images'])} images</p>
<h1>{verdict}: {points(found.miou)} points of mIoU</h1>
<p>95 % interval of the difference {points(low)} to {points(high)}, p = {found.miou_p:.2g}
(paired bootstrap over images). {_classes(better)} significantly better,
{_classes(worse)} significantly worse.</p>
</header>
<div class="scroll" tabindex="0" role="region" aria-label="Figures">
<table class="compact"><caption>Figures in percent</caption>
<thead><tr><td></td><th scope="col">A</th><th scope="col">B</th><th scope="col">B − A</th></tr>
</thead><tbody>{''.join(rows)}</tbody></table></div>
<details><summary>A: {escape(a.run['config'])}</summary>{_origin(a)}</details>
<details><summary>B: {escape(b.run['config'])}</summary>{_origin(b)}</details>"""


def _classes(count: int) -> str:
    return f'{count} class is' if count == 1 else f'{count} classes are'


def _origin(results: Results) -> str:
    """A list of what a run was made with."""
    run = results.run
    checkpoint, time, memory = (run.get(key, {}) for key in (
        'checkpoint', 'time', 'peak_memory_bytes'))
    machine = run.get('hardware', {})
    items = {
        'config': run['config'], 'checkpoint': checkpoint.get('path'),
        'SHA-256 of it': checkpoint.get('sha256'),
        'time per image': f'{time["seconds_per_image"]:.3g} s ({time["seconds"]:.4g} s in all)'
        if time else None,
        'peak memory': ', '.join(f'{size(value)} ({key})' for key, value in memory.items()),
        'hardware': ', '.join(str(machine[key]) for key in ('gpu', 'cpu') if machine.get(key)),
        'processes': f'{machine.get("processes", 1)} on {machine.get("device")}, '
                     f'{machine.get("cpus")} CPUs',
        'versions': ', '.join(f'{key} {value}' for key, value in run.get('versions', {}).items()),
        'images': run.get('image_folder'), 'skipped': ', '.join(run.get('skipped', [])),
        'file': osp.abspath(results.path)}
    return '<dl class="origin">' + ''.join(
        f'<dt>{key}</dt><dd>{escape(str(value))}</dd>' for key, value in items.items() if value
    ) + '</dl>'


def _histogram(results: Results) -> str:
    """How the images score, as a small chart."""
    count = len(results.classes)
    scores = image_scores(*results.areas, results.images.truth_areas(count))
    scores = scores[np.isfinite(scores)]
    if not scores.size:
        return ''
    heights, _ = np.histogram(scores, _BINS, (0, 1))
    bars = ''.join(
        f'<rect x="{15 * i + 1}" y="{80 - 76 * height / heights.max():.1f}" width="13" '
        f'height="{76 * height / heights.max():.1f}"><title>{height} images from {5 * i} to '
        f'{5 * i + 5} %</title></rect>' for i, height in enumerate(heights) if height)
    middle = float(np.median(scores))
    return f"""<figure class="histogram">
<svg viewBox="0 0 300 98" role="img" aria-label="Histogram of the mean IoU of each image; the
median is {percent(middle)} percent">{bars}<path d="M0 80.5H300"/>
<path class="median" d="M{300 * middle:.1f} 0V80"/><text x="0" y="94">0</text>
<text x="150" y="94" text-anchor="middle">50</text>
<text x="300" y="94" text-anchor="end">100</text></svg>
<figcaption>Mean IoU of each image over the classes in it, percent; median {percent(middle)}
</figcaption></figure>"""
