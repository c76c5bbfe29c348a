"""Reports the results of a sweep: a table in the log, ``sweep.json``, ``sweep.png``.

Results are read from the heads' own logs and folders, so that a resumed sweep reports all of them.
"""
import os.path as osp
from collections.abc import Sequence
from statistics import mean, pstdev
from typing import TYPE_CHECKING

from mmcv.runner import get_dist_info
from mmseg.utils import get_root_logger

from ...checkpoint.work_dir import best_checkpoints_in, newest_whole
from ...evaluation.training_log import read_training_log
from ...files import atomic_path
from ..used_folder import HEAD_CONFIG
from .grid import Combination, label
from .records import SWEEP, last_loss, read_result, read_scores, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOT = 'sweep.png'
COLUMNS = dict(head='head', layers='layers', train_last='last', r='r', alpha='alpha', lr='lr',
               weight_decay='decay')


def report(work_dir: str, seed: int, found: Sequence[Combination],
           kind: str = 'head') -> list[dict]:
    """Writes the table, the plot and the JSON file, on rank 0.

    Args:
        work_dir: Folder of the sweep.
        seed: Seed of the sweep.
        found: Heads of the sweep.
        kind: What they are, 'head' or 'run'.

    Returns:
        For each head: ``name``, ``settings``, ``state`` ('finished', 'diverged' or 'started'),
        ``iterations``, ``reason`` of a stop, ``loss`` (the last logged one), ``mIoU`` (the last),
        ``best_mIoU``, ``best_iteration``, ``config`` and ``checkpoint`` (the best one, else the
        newest). Missing values are None.

    Raises:
        SaveError: If a file could not be written.
    """
    if get_dist_info()[0] > 0:
        return []
    heads = [_describe(one) for one in found]
    scored = [head for head in heads if head['best_mIoU'] is not None]
    best = max(scored, key=lambda head: head['best_mIoU'], default=None)
    summary = dict(kind=kind, seed=seed, best=best and best['name'], spread=_spread(scored),
                   by_setting=_by_setting(scored), heads=heads)
    write_json(osp.join(work_dir, SWEEP), summary)
    logger = get_root_logger()
    logger.info('sweep\n%s', table(heads))
    if scored:
        with atomic_path(osp.join(work_dir, PLOT)) as part:
            draw(scored).savefig(part, format='png', dpi=120)
        logger.info('%s', _in_words(summary))
    logger.info('sweep: %s', ', '.join(osp.join(work_dir, name)
                                       for name in (SWEEP, PLOT) if name == SWEEP or scored))
    return heads


def record_start(work_dir: str, seed: int, found: Sequence[Combination]) -> None:
    """Records the seed, with which an interrupted sweep is resumed; on rank 0."""
    if get_dist_info()[0] == 0:
        heads = [dict(name=one.name, settings=one.settings, state='started') for one in found]
        write_json(osp.join(work_dir, SWEEP), dict(seed=seed, heads=heads))


def table(heads: Sequence[dict]) -> str:
    """Formats the heads as text, best first; the best has a star."""
    varied = [key for key in COLUMNS if any(key in head['settings'] for head in heads)]
    order = sorted(heads, key=lambda head: -1 if head['best_mIoU'] is None else head['best_mIoU'],
                   reverse=True)
    rows = [['', *(COLUMNS[key] for key in varied), 'mIoU', 'best', 'at', 'loss', '']]
    for i, head in enumerate(order):
        rows.append([
            '*' if i == 0 and head['best_mIoU'] is not None else '',
            *(label(head['settings'].get(key, '')) for key in varied),
            _percent(head['mIoU']), _percent(head['best_mIoU']),
            '-' if head['best_iteration'] is None else str(head['best_iteration']),
            '-' if head['loss'] is None else f'{head["loss"]:.4g}',
            '' if head['state'] == 'finished' else f'{head["state"]}: {head["reason"] or ""}'])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return '\n'.join('  '.join(cell.rjust(width) if 0 < i < len(row) - 1 else cell.ljust(width)
                               for i, (cell, width) in enumerate(zip(row, widths))).rstrip()
                     for row in rows)


def draw(scored: Sequence[dict]) -> 'Figure':
    """Draws a panel for each varied setting: the mIoU of every head over its values.

    Dots are heads, a bar is the mean of the heads with a value, the star is the best head.
    """
    varied = [key for key in COLUMNS
              if len({label(head['settings'].get(key, '')) for head in scored}) > 1] or ['head']
    best = max(scored, key=lambda head: head['best_mIoU'])
    from matplotlib.figure import Figure  # which takes half a second to import
    figure = Figure(figsize=(1.2 + 3.2 * len(varied), 3.6), layout='constrained')
    panels = figure.subplots(1, len(varied), sharey=True, squeeze=False)[0]
    for panel, key in zip(panels, varied):
        values = _values(scored, key)
        for place, value in enumerate(values):
            scores = [100 * head['best_mIoU'] for head in scored if _value(head, key) == value]
            panel.plot([place] * len(scores), scores, 'o', color='tab:blue', alpha=0.6)
            panel.plot([place - 0.2, place + 0.2], [mean(scores)] * 2, color='black')
        panel.plot(values.index(_value(best, key)), 100 * best['best_mIoU'], '*', color='tab:red',
                   markersize=14)
        panel.set_xticks(range(len(values)), values)
        panel.set_xlim(-0.6, len(values) - 0.4)
        panel.set_xlabel(key)
        panel.grid(axis='y', alpha=0.3)
    panels[0].set_ylabel('mIoU in percent')
    figure.suptitle(f'best: {best["name"]}, {100 * best["best_mIoU"]:.2f}', fontsize=10)
    return figure


def _describe(combination: Combination) -> dict:
    folder = combination.cfg.work_dir
    result = read_result(folder) or {}
    scores = {step: figures['mIoU'] for step, figures in read_scores(folder).items()
              if 'mIoU' in figures}
    best = max(scores, key=lambda step: scores[step], default=None)
    kept = best_checkpoints_in(folder)
    return dict(
        name=combination.name, settings=combination.settings,
        state=result.get('state', 'started'), reason=result.get('reason'),
        iterations=result.get('iterations'),
        loss=last_loss(read_training_log(folder)),
        mIoU=scores[max(scores)] if scores else None,
        best_mIoU=None if best is None else scores[best], best_iteration=best,
        config=osp.join(folder, HEAD_CONFIG),
        checkpoint=kept[-1][1] if kept else newest_whole(folder))


def _spread(scored: Sequence[dict]) -> dict | None:
    """Returns minimum, maximum, mean and standard deviation of the heads' best mIoU."""
    if not scored:
        return None
    values = [head['best_mIoU'] for head in scored]
    return dict(heads=len(values), least=min(values), most=max(values), mean=mean(values),
                deviation=pstdev(values))


def _by_setting(scored: Sequence[dict]) -> dict:
    """Returns setting -> value -> spread of the heads with this value."""
    return {key: {value: _spread([head for head in scored if _value(head, key) == value])
                  for value in _values(scored, key)}
            for key in COLUMNS if any(key in head['settings'] for head in scored)}


def _values(scored: Sequence[dict], key: str) -> list[str]:
    return list(dict.fromkeys(_value(head, key) for head in scored))


def _value(head: dict, key: str) -> str:
    return label(head['settings'].get(key, ''))


def _in_words(summary: dict) -> str:
    spread = summary['spread']
    return (f'best: {summary["best"]}, mIoU {100 * spread["most"]:.2f}; {spread["heads"]} '
            f'{summary["kind"]}s from {100 * spread["least"]:.2f} to {100 * spread["most"]:.2f}, '
            f'standard deviation {100 * spread["deviation"]:.2f}')


def _percent(score: float | None) -> str:
    return '-' if score is None else f'{100 * score:.2f}'
