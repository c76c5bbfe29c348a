"""Figures of a checkpoint for its model card: those of a test of this very file."""
import glob
import os
import os.path as osp
from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from ...evaluation.results import read_results
from ...schema import choice, read_json, record


@dataclass(frozen=True)
class Figures:
    """Results of a test.

    Attributes:
        path: Path of the eval_*.json.
        run: Its content.
    """
    path: str
    run: dict[str, Any]

    @property
    def means(self) -> dict[str, float]:
        """Means over the classes by mmseg's names, such as mIoU; of 0..1."""
        return {name: value for name, value in self.run['metric'].items()
                if '.' not in name and value is not None}

    @property
    def interval(self) -> dict[str, Any] | None:
        """Interval of mIoU, or of the figure that it names; None if there is none."""
        found = self.run.get('interval')
        return found if found and found.get('low') is not None else None

    def interval_of(self, name: str) -> tuple[float, float] | None:
        """Returns the ends of the interval of a figure; None if it has none."""
        found = self.interval
        if found is None or found.get('figure', 'mIoU') != name:
            return None
        return found['low'], found['high']


def find_figures(checkpoint: str, sha256: str, scale: str = 'single',
                 given: str | None = None) -> Figures | None:
    """Finds the newest results of a checkpoint: those given, or else those beside it.

    Args:
        checkpoint: Path of the checkpoint.
        sha256: Its SHA-256, which the results must record.
        scale: 'single', or 'multi' for tests with several scales and flips: which of those beside
            it are meant.
        given: An eval_*.json, or a work dir with some.

    Returns:
        The figures; None if none are given, and none of this checkpoint are beside it.

    Raises:
        InputError: If those given cannot be read, or are of another checkpoint.
    """
    if given is not None:
        results = read_results(given)
        tested = results.run.get('checkpoint', {}).get('sha256')
        if tested != sha256:
            raise InputError(f'--results {results.path} are of another checkpoint (SHA-256 '
                             f'{tested}; that of {checkpoint} is {sha256}): test this one with '
                             'tools/test.py --eval mIoU')
        return Figures(results.path, results.run)
    folder = osp.dirname(osp.abspath(checkpoint))
    for path in sorted(glob.glob(osp.join(glob.escape(folder), f'eval_{scale}_scale_*.json')),
                       key=os.path.getmtime, reverse=True):
        if read_json(path, record(dict(checkpoint=record(dict(sha256=choice(sha256)))))):
            results = read_results(path)
            return Figures(results.path, results.run)
    return None

