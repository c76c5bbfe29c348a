"""Test runs in many work dirs, found and put into groups that can be compared.

Runs can be compared if they were measured on the same images with the same labels and classes.
Letters: `K` classes.
"""
import glob
import hashlib
import os.path as osp
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InputError
from ...evaluation.bootstrap import iou
from ...evaluation.results import read_results
from ...schema import array, nullable, number, read_json, record, text
from .gallery import Progress
from .numbers import count_of, is_known, percent

_SWEEP = 'sweep.json'
_HEADS = record({}, dict(heads=array(record(dict(name=text), dict(
    best_mIoU=nullable(number()), config=nullable(text), checkpoint=nullable(text))),
    'the heads of a sweep'), kind=text))


@dataclass(frozen=True)
class TestedRun:
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
    def of(cls, name: str) -> 'TestedRun':
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
    runs: list[TestedRun]
    common: np.ndarray
    differs: str

    def mean(self, run: TestedRun) -> float:
        """Computes the mean IoU of a run over the classes that count in all runs."""
        return float(np.mean(run.iou[self.common])) if self.common.any() else float('nan')


def find_runs(folders: Sequence[str], page: str,
              progress: Progress) -> tuple[list[TestedRun], dict[str, str]]:
    """Finds the newest test runs of work dirs, and of the heads of sweeps.

    Args:
        folders: Work dirs, or eval_*.json files.
        page: Path of the page, which may be among them and is left out.
        progress: Function that shows the progress over these.

    Returns:
        The runs, and path -> reason of what has none.

    Raises:
        InputError: If a path does not exist.
    """
    runs, without = [], {}
    paths = list(dict.fromkeys(map(osp.normpath, folders)))
    for folder in progress(paths, len(paths)):
        if osp.abspath(folder) == osp.abspath(page):
            continue
        if osp.isfile(folder) and not folder.endswith('.json'):
            without[folder] = 'is a file: expected a work dir or an eval_*.json'
            continue
        heads, kind = _heads(folder)
        if not osp.isdir(folder):
            tested = [folder]
        else:
            tested = [one for one in (folder, *(osp.join(folder, name) for name in heads))
                      if glob.glob(osp.join(glob.escape(one), 'eval_*.json'))]
        untested = len(heads) - sum(osp.join(folder, name) in tested for name in heads)
        if tested and untested:
            without[folder] = (f'sweep of {count_of(len(heads), kind)}, {untested} of them not '
                               'tested')
        if not tested:
            without[folder] = (_say_heads(folder, heads, kind) if heads else
                               'holds no eval_*.json: not tested yet')
        for one in tested:
            try:
                runs.append(TestedRun.of(one))
            except InputError as error:
                if not osp.exists(one):
                    raise
                without[one] = str(error)
    return runs, without


def is_sweep(folder: str) -> bool:
    """Returns whether a folder is that of a sweep, whose results are those of several runs."""
    return osp.isfile(osp.join(folder, _SWEEP)) and not glob.glob(
        osp.join(glob.escape(folder), 'eval_*.json'))


def _heads(folder: str) -> tuple[dict[str, dict], str]:
    """Returns name -> record of the heads of a sweep, and what they are, 'head' or 'run'.

    There are none in another folder.
    """
    path = osp.join(folder, _SWEEP)
    if not osp.isfile(path):
        return {}, ''
    try:
        content = read_json(path, _HEADS) or {}
    except InputError:  # Heads are found by their folders in any case.
        content = {}
    heads = {head['name']: head for head in content.get('heads', [])
             if osp.basename(head['name']) == head['name']}
    found = [osp.basename(osp.dirname(one))
             for one in sorted(glob.glob(osp.join(glob.escape(folder), '*', 'eval_*.json')))]
    return {**{name: {} for name in found}, **heads}, content.get('kind', 'head')


def _say_heads(folder: str, heads: dict[str, dict], kind: str) -> str:
    """Says what is known of a sweep no head, or run, of which is tested."""
    scored = {name: head['best_mIoU'] for name, head in heads.items()
              if is_known(head.get('best_mIoU'))}
    said = f'sweep of {count_of(len(heads), kind)}, none of them tested'
    if not scored:
        return said
    best = max(scored, key=lambda name: scored[name])
    return (f'{said}; the best in its own evaluations is {best}, mIoU {percent(scored[best], 2)}: '
            f'tools/test.py {osp.join(folder, best, "config.py")} '
            f'{heads[best].get("checkpoint") or "CHECKPOINT"} --eval mIoU '
            f'--work-dir {osp.join(folder, best)}')


def group_runs(runs: list[TestedRun]) -> list[Group]:
    """Groups the runs by what they were measured on, the largest group first."""
    by_data: dict[tuple, list[TestedRun]] = {}
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
