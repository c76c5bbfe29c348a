"""Describes a sweep in its work dir, as :mod:`..run_folder` does a run."""
import os.path as osp
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ...checkpoint.work_dir import checkpoints_in
from ...evaluation.training_log import read_training_log
from ...visualization.curves import write_curves
from ..run import Run
from ..run_folder import RunFolder
from ..run_folder.commands import test_commands
from ..run_folder.figures import CSV, figures_of, write_classes
from ..run_folder.listing import CURVES, Checkpoints
from ..used_folder import HEAD_CONFIG
from .records import read_result, read_scores


class SweepFolder(RunFolder):
    """Describes a sweep in its work dir: see :class:`RunFolder`.

    Args:
        run: Run of the sweep.
        heads: Work dirs of the heads by their names.
        asked_to_stop: See :class:`RunFolder`.
    """

    template = 'sweep.md'

    def __init__(self, run: Run, heads: Mapping[str, str],
                 asked_to_stop: Callable[[], int | None] = lambda: None):
        super().__init__(run, asked_to_stop)
        self._heads = heads

    def starts_after(self, iterations: int) -> None:
        """Notes the number of iterations done before the first round of this start."""
        if self._starts and not self._seen:
            self._starts[-1] = replace(self._starts[-1], first=iterations, done=iterations)

    def describe_head(self, folder: str) -> None:
        """Draws the curves of a head that has ended, and writes its table of classes."""
        if self.is_writer:
            self.guarded(lambda: self._describe(folder))

    def _describe(self, folder: str) -> None:
        log = read_training_log(folder)
        write_curves(osp.join(folder, CURVES), log, osp.basename(folder))
        if classes := figures_of(log).classes:
            write_classes(osp.join(folder, CSV), classes)

    def context(self) -> dict[str, object]:
        """Returns what the page says; the heads' records are read, not their logs."""
        heads = sorted((_head(name, folder, self.reads_logs)
                        for name, folder in self._heads.items()), reverse=True,
                       key=lambda head: (head['best_mIoU'] is not None, head['best_mIoU']))
        test: list[str] = []
        if heads and self.reads_logs:
            folder = heads[0]['folder']
            checkpoint = Checkpoints.of(folder).chosen
            if checkpoint is not None:
                test = test_commands(osp.join(folder, HEAD_CONFIG), checkpoint, folder)
        return dict(self.common(), heads=heads, test=test, separate=False,
                    plot=osp.exists(osp.join(self.folder, 'sweep.png')))


class SeparateRunsFolder(SweepFolder):
    """Describes a sweep whose combinations are runs of their own, by the records that those leave.

    Its iterations are those of all runs together.
    """

    def __enter__(self) -> 'SeparateRunsFolder':
        """Writes the page of a sweep that starts."""
        super().__enter__()
        if self.reads_logs:
            self.starts_after(self._iterations())
        return self

    def run_ended(self) -> None:
        """Notes that a run has ended."""
        self.reads_logs = True
        self.refresh()

    def _write(self, state: str, reason: str) -> None:
        if self.reads_logs:
            self.done(self._iterations())
        super()._write(state, reason)

    def _iterations(self) -> int:
        """Returns the number of iterations that are recorded, or saved, in the runs' folders."""
        done = 0
        for folder in self._heads.values():
            saved = [number for number, _ in checkpoints_in(folder)]
            result = read_result(folder) or {}
            done += result.get('iterations') or max(saved, default=0)
        return done

    def context(self) -> dict[str, object]:
        """Returns what the page says."""
        return dict(super().context(), separate=True,
                    end=len(self._heads) * self.run.cfg.runner.max_iters)


def _head(name: str, folder: str, recorded: bool) -> dict[str, Any]:
    """Describes a head from its records, unless they are of an earlier sweep."""
    scores = {step: found['mIoU'] for step, found in read_scores(folder).items()
              if 'mIoU' in found} if recorded else {}
    result = (read_result(folder) if recorded else None) or {}
    best = max(scores, key=lambda step: scores[step], default=None)
    return dict(name=name, folder=folder, mIoU=scores[max(scores)] if scores else None,
                best_mIoU=None if best is None else scores[best], best_iteration=best,
                loss=result.get('loss'), state=result.get('state', 'started'),
                reason=result.get('reason'))
