"""The page on many work dirs: their newest test runs, in groups that can be compared."""
import os.path as osp
import re
from collections.abc import Sequence
from urllib.parse import quote

import numpy as np

from ...errors import InputError
from ...evaluation.metric_names import means_of
from .gallery import Progress
from .numbers import count_of, is_known, percent
from .page import render, silently, write_page
from .tables import Bar, Cell, Table
from .tested_runs import Group, TestedRun, find_runs, group_runs

_COMMON = 'Common mIoU'
_ITERATION = re.compile(r'iter_(\d+)')


def write_leaderboard(path: str, folders: Sequence[str],
                      progress: Progress = silently) -> list[str]:
    """Writes the page on the newest test runs in many work dirs.

    Args:
        path: Path of the .html; its folder is there.
        folders: Work dirs, or eval_*.json files. A sweep counts as the work dirs of its heads.
        progress: Function that shows the progress over these: (items, their number) -> items.

    Returns:
        Lines that say what the page says, for a terminal.

    Raises:
        InputError: If a path does not exist, or there are no results at all.
        SaveError: If the page could not be written; an earlier one is unchanged.
    """
    runs, without = find_runs(folders, path, progress)
    if not runs and len(folders) == 1:
        raise InputError(f'no results: {folders[0]}: {without.get(folders[0], "not tested")}')
    if not runs:
        raise InputError(f'none of {len(folders)} folders holds results (eval_*.json), such as '
                         f'{next(iter(without), folders[0])}: write them with `tools/test.py '
                         'CONFIG CHECKPOINT --eval mIoU --work-dir FOLDER`')
    groups = group_runs(runs)
    write_page(path, render(
        'leaderboard.html', groups=[(group, _table(group, path)) for group in groups],
        count=len(runs),
        without=_without(without, path) if without else None))
    return _in_words(groups, without)


def _table(group: Group, page: str) -> Table:
    """Lists the runs of a group."""
    means = [means_of(run.content['metric']) for run in group.runs]
    names = [name for name in dict.fromkeys(name for one in means for name in one)
             if name != 'mIoU']
    same = len({np.isfinite(run.iou).tobytes() for run in group.runs}) == 1
    common = [] if same else [
        (_COMMON, f'mean IoU over the {count_of(int(group.common.sum()), "class")} that count in '
         'all runs of the group, percent')]
    columns = [
        ('TestedRun', 'work dir; leads to its own page where there is one'), *common,
        ('mIoU', 'as measured, over the classes that count in the run, percent'),
        ('95 % interval', 'of mIoU as measured; bootstrap over images'),
        ('Classes', 'that count in mIoU as measured: in the ground truth or predicted'),
        *((name, 'as measured, percent') for name in names),
        ('Config', 'name of the config file'), ('Iterations', 'by the name of the checkpoint'),
        ('Checkpoint', 'file, and beginning of its SHA-256'),
        ('s / image', 'seconds an image in the test'), ('Tested', 'date of the test')]
    rows = [_row(group, run, [values.get(name) for name in names], same, page)
            for run, values in zip(group.runs, means)]
    note = '' if same else (
        'A class that is predicted, but not in the ground truth, counts in mIoU as measured with '
        f'0: these means are over different classes, and {_COMMON}, over the '
        f'{count_of(int(group.common.sum()), "class")} that count in all runs, can be compared.')
    return Table(group.title, columns, rows, note, 'mIoU' if same else _COMMON, searched='run')


def _row(group: Group, run: TestedRun, values: list[float | None], same: bool,
         page: str) -> list[Cell]:
    content = run.content
    interval, miou = content.get('interval') or {}, content['metric']['mIoU']
    low, high = interval.get('low'), interval.get('high')
    file, iteration = _checkpoint(content.get('checkpoint', {}))
    seconds = content.get('time', {}).get('seconds_per_image')
    mean = group.mean(run)
    ends = (low, high) if is_known(low) and is_known(high) else None
    first = [Cell(percent(miou, 2), miou, 'number barred', 'value',
                  bar=Bar((0, miou), ends) if is_known(miou) else None)] if same else [
        Cell(percent(mean, 2), mean, 'number barred', 'value',
             bar=Bar((0, mean)) if is_known(mean) else None), Cell(percent(miou, 2), miou)]
    name = _from_page(run.name, page)
    return [Cell(name, name, 'name', link=_own_page(run, page)), *first,
            Cell(f'{percent(low, 2)} – {percent(high, 2)}', low),
            Cell(str(int(np.isfinite(run.iou).sum())), float(np.isfinite(run.iou).sum())),
            *(Cell(percent(value, 2), value) for value in values),
            Cell(run.config, run.config, 'name'),
            Cell('–' if iteration is None else str(iteration), iteration),
            Cell(file, file, 'name'),
            Cell('–' if seconds is None else f'{seconds:.3g}', seconds),
            Cell(content['date'], content['date'], 'word')]


def _from_page(path: str, page: str) -> str:
    """Returns a path relative to the folder of the page, if it is in it."""
    folder = osp.join(osp.dirname(osp.abspath(page)), '')
    return osp.abspath(path)[len(folder):] if osp.abspath(path).startswith(folder) else path


def _checkpoint(found: dict[str, str]) -> tuple[str, int | None]:
    """Returns name and beginning of the hash of a checkpoint, and the iteration in its name."""
    name = found.get('file') or osp.basename(found.get('path', '')) or '–'
    iteration = _ITERATION.search(name)
    return (' '.join(filter(None, (name, found.get('sha256', '')[:8]))),
            int(iteration.group(1)) if iteration else None)


def _own_page(run: TestedRun, page: str) -> str:
    """Returns the address of a run's own page, relative to the leaderboard; empty without one."""
    own = osp.splitext(osp.abspath(run.path))[0] + '.html'
    if not osp.isfile(own):
        return ''
    return quote(osp.relpath(own, osp.dirname(osp.abspath(page))).encode(errors='surrogateescape'))


def _without(reasons: dict[str, str], page: str) -> Table:
    columns = [('Path', 'as it was given'), ('Reason', 'why it is not above')]
    return Table('Without results', columns,
                 [[Cell(_from_page(path, page), path, 'name'), Cell(reason, reason, 'sentence')]
                  for path, reason in reasons.items()], '', '', searched='')


def _in_words(groups: list[Group], without: dict[str, str]) -> list[str]:
    lines = []
    for group in groups:
        lines.append(f'{group.title}: mIoU over the '
                     f'{count_of(int(group.common.sum()), "class")} of all runs')
        lines += [f'  {percent(group.mean(run), 2):>6}  {run.name}' for run in group.runs]
    if len(groups) > 1:
        lines.append('runs of different groups cannot be compared: their data differ')
    return lines + [f'no results: {path}: {reason}' for path, reason in without.items()]
