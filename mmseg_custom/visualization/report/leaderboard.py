"""The page on many work dirs: their newest test runs, in groups that can be compared.

Runs can be compared if they were measured on the same images with the same labels and classes.
Letters: `K` classes.
"""
import glob
import hashlib
import os.path as osp
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from ...errors import InputError
from ...evaluation.bootstrap import iou
from ...evaluation.metric_names import means_of
from ...evaluation.results import read_results
from ...schema import array, nullable, number, read_json, record, text
from .gallery import Progress
from .numbers import count_of, is_known, percent
from .page import render, silently, write_page
from .tables import Bar, Cell, Table

_COMMON = 'Common mIoU'
_SWEEP = 'sweep.json'
_HEADS = record({}, dict(heads=array(record(dict(name=text), dict(
    best_mIoU=nullable(number()), config=nullable(text), checkpoint=nullable(text))),
    'the heads of a sweep')))
_ITERATION = re.compile(r'iter_(\d+)')


@dataclass(frozen=True)
class Run:
    """What the page says of the newest test run in a work dir; the images themselves are dropped.

    Attributes:
        name: Path of the work dir as it was given.
        path: Path of the .json of its results.
        config: Name of its config.
        content: Content of the .json.
        measured_on: What must be equal in runs that are compared: its name -> a digest of it.
        iou: IoU of each class (K,); nan where neither the ground truth nor a prediction shows it.
    """
    name: str
    path: str
    config: str
    content: dict[str, Any]
    measured_on: dict[str, str]
    iou: np.ndarray

    @classmethod
    def of(cls, name: str) -> 'Run':
        """Reads the newest test run in a work dir.

        Raises:
            InputError: If it cannot be read.
        """
        results = read_results(name)
        measured_on = {'images': _digest(*results.images.names.tolist()),
                       'classes': _digest(*results.classes),
                       'labels': _digest(results.ground_truth_areas.tobytes())}
        return cls(name, results.path, results.name, results.run, measured_on,
                   iou(*(area.sum(0) for area in results.areas)))


@dataclass(frozen=True)
class Group:
    """Runs that can be compared, best first.

    Attributes:
        title: Title of its section.
        runs: Its runs.
        common: Whether each class counts in the mIoU of all of them (K,).
        differs: In what its data differ from those of the first group.
    """
    title: str
    runs: list[Run]
    common: np.ndarray
    differs: str

    def mean(self, run: Run) -> float:
        """Computes the mean IoU of a run over the classes that count in all runs."""
        return float(np.mean(run.iou[self.common])) if self.common.any() else float('nan')


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
    runs, without = _find(folders, path, progress)
    if not runs:
        raise InputError(f'none of {len(folders)} folders holds results (eval_*.json), such as '
                         f'{next(iter(without), folders[0])}: write them with `tools/test.py '
                         'CONFIG CHECKPOINT --eval mIoU --work-dir FOLDER`')
    groups = _group(runs)
    write_page(path, render(
        'leaderboard.html', groups=[(group, _table(group, path)) for group in groups],
        count=len(runs),
        without=_without(without, path) if without else None))
    return _in_words(groups, without)


def _find(folders: Sequence[str], page: str,
          progress: Progress) -> tuple[list[Run], dict[str, str]]:
    """Returns the runs, and path -> reason of what has none; leaves out the page itself."""
    runs, without = [], {}
    paths = list(dict.fromkeys(map(osp.normpath, folders)))
    for folder in progress(paths, len(paths)):
        if osp.abspath(folder) == osp.abspath(page):
            continue
        if osp.isfile(folder) and not folder.endswith('.json'):
            without[folder] = 'is a file: expected a work dir or an eval_*.json'
            continue
        heads = _heads(folder)
        if not osp.isdir(folder):
            tested = [folder]
        else:
            tested = [one for one in (folder, *(osp.join(folder, name) for name in heads))
                      if glob.glob(osp.join(glob.escape(one), 'eval_*.json'))]
        untested = len(heads) - sum(osp.join(folder, name) in tested for name in heads)
        if tested and untested:
            without[folder] = (f'sweep of {count_of(len(heads), "head")}, {untested} of them not '
                               'tested')
        if not tested:
            without[folder] = (_say_heads(folder, heads) if heads else
                               'holds no eval_*.json: not tested yet')
        for one in tested:
            try:
                runs.append(Run.of(one))
            except InputError as error:
                if not osp.exists(one):
                    raise
                without[one] = str(error)
    return runs, without


def _heads(folder: str) -> dict[str, dict]:
    """Returns name -> record of the heads of a sweep; empty for another folder."""
    path = osp.join(folder, _SWEEP)
    if not osp.isfile(path):
        return {}
    try:
        content = read_json(path, _HEADS) or {}
    except InputError:  # Heads are found by their folders in any case.
        content = {}
    heads = {head['name']: head for head in content.get('heads', [])
             if osp.basename(head['name']) == head['name']}
    found = [osp.basename(osp.dirname(one))
             for one in sorted(glob.glob(osp.join(glob.escape(folder), '*', 'eval_*.json')))]
    return {**{name: {} for name in found}, **heads}


def _say_heads(folder: str, heads: dict[str, dict]) -> str:
    """Says what is known of a sweep no head of which is tested."""
    scored = {name: head['best_mIoU'] for name, head in heads.items()
              if is_known(head.get('best_mIoU'))}
    said = f'sweep of {count_of(len(heads), "head")}, none of them tested'
    if not scored:
        return said
    best = max(scored, key=lambda name: scored[name])
    return (f'{said}; the best in its own evaluations is {best}, mIoU {percent(scored[best], 2)}: '
            f'tools/test.py {osp.join(folder, best, "config.py")} '
            f'{heads[best].get("checkpoint") or "CHECKPOINT"} --eval mIoU '
            f'--work-dir {osp.join(folder, best)}')


def _group(runs: list[Run]) -> list[Group]:
    """Groups the runs by what they were measured on, the largest group first."""
    by_data: dict[tuple, list[Run]] = {}
    for run in runs:
        by_data.setdefault(tuple(run.measured_on.values()), []).append(run)
    groups: list[Group] = []
    for members in sorted(by_data.values(), key=len, reverse=True):
        content = members[0].content
        common = np.logical_and.reduce([np.isfinite(run.iou) for run in members])
        data = (f'{count_of(content["images"], "image")} of {_ending(content["image_folder"])}, '
                f'{count_of(len(content["classes"]), "class")}')
        first = groups[0].runs[0] if groups else members[0]
        differs = [what for what, digest in members[0].measured_on.items()
                   if digest != first.measured_on[what]]
        group = Group(data if len(by_data) == 1 else f'Group {len(groups) + 1}: {data}', members,
                      common, ', '.join(differs))
        members.sort(key=group.mean, reverse=True)
        groups.append(group)
    return groups


def _ending(folder: str) -> str:
    """Returns the last three parts of a path, which tell data sets apart."""
    return '/'.join(folder.replace('\\', '/').rstrip('/').split('/')[-3:])


def _digest(*parts: str | bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode(errors='surrogatepass')
        found.update(len(data).to_bytes(8, 'big') + data)
    return found.hexdigest()


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
        ('Run', 'work dir; leads to its own page where there is one'), *common,
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


def _row(group: Group, run: Run, values: list[float | None], same: bool, page: str) -> list[Cell]:
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


def _own_page(run: Run, page: str) -> str:
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
