"""Writes the pages of a run as it goes on, on rank 0."""
import os
import os.path as osp
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from types import TracebackType

from mmcv.runner import BaseRunner, Hook, get_dist_info
from mmseg.utils import get_root_logger

from ...datasets.nesting import innermost_datasets, sample_paths
from ...evaluation.training_log import EMPTY, read_training_log
from ...files import atomic_write
from ...visualization.curves import write_curves
from ..cli import explain
from ..config_file import path_of_copy
from ..evaluation_hook import SegEvalHook
from ..run import Run
from . import commands, facts
from .figures import CSV, figures_of, write_classes
from .listing import CURVES, README, Checkpoints, list_files
from .page import is_ours, render
from .record import (
    FAILED,
    FINISHED,
    RUNNING,
    STOPPED,
    Start,
    local_time,
    read_starts,
    write_starts,
)
from .record import NAME as RECORD

SHARE = 0.02  # of the time of a run, which its pages may take while it goes on


class RunFolder(Hook):
    """Describes a run in its work dir, from its start to its end, however that comes.

    Used as a context around the run, and as a hook of its runner. The pages are written when the
    context is entered and left, and after evaluations and checkpoints, whose files they then name,
    though only as often as it takes a 50th of the time. On other ranks than 0, nothing is done.

    Args:
        run: The run.
        asked_to_stop: Function that returns the signal that this process has received, or None.
    """

    template = 'run.md'

    def __init__(self, run: Run, asked_to_stop: Callable[[], int | None] = lambda: None):
        self.run, self._asked_to_stop = run, asked_to_stop
        self.is_writer = get_dist_info()[0] == 0
        self._lost = False
        self._began, self._not_before, self._outdated = time.monotonic(), 0., False
        # Of each runner: newest checkpoint, evaluations so far, best checkpoints.
        self._seen: list[tuple[str | None, int, list[str | None]]] = []
        self._sections: dict[str, facts.Facts] = {}
        self._network: facts.Facts = {}
        self._runner: BaseRunner | None = None
        self.reads_logs = run.resumed or run.options.auto_resume  # else they are of an earlier run
        self._starts: list[Start] = []

    @property
    def folder(self) -> str:
        """The work dir."""
        return self.run.work_dir

    @cached_property
    def _config(self) -> str:
        """Name of the resolved config in the work dir."""
        return osp.basename(path_of_copy(self.folder, self.run.cfg.filename or 'config.py'))

    def __enter__(self) -> 'RunFolder':
        """Writes the page of a run that starts."""
        if self.is_writer:
            self.guarded(self._begin)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Writes how the run ended."""
        if self.is_writer:
            self.refresh(*_end_of(error, self._asked_to_stop()))

    def attach(self, runner: BaseRunner) -> None:
        """Follows a runner, whose model is built."""
        self._runner = runner
        runner.register_hook(self, priority='BELOW_NORMAL')  # after the step and the checkpoint
        if self.is_writer:
            self.guarded(lambda: self._network.update(
                facts.network(self.run, runner.model)))

    def before_train_iter(self, runner: BaseRunner) -> None:
        """Writes the page if the last iteration saved a checkpoint or ended in an evaluation."""
        self.follow([runner])

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Notes that an iteration is done."""
        if self.is_writer:
            self.done(runner.iter + 1)

    def follow(self, runners: Sequence[BaseRunner]) -> None:
        """Notes how far runners are; writes pages that lack a checkpoint or an evaluation."""
        if not self.is_writer or not runners:
            return
        seen = []
        for runner in runners:
            hooks = [hook for hook in runner.hooks if isinstance(hook, SegEvalHook)]
            seen.append(((runner.meta or {}).get('hook_msgs', {}).get('last_ckpt'),
                         sum(hook.evaluations for hook in hooks),
                         [getattr(hook, 'best_ckpt_path', None) for hook in hooks]))
        self._outdated |= bool(self._seen) and seen != self._seen
        self._seen = seen
        self.done(runners[0].iter)
        if self._outdated and time.monotonic() >= self._not_before:
            self.refresh()

    def done(self, iterations: int) -> None:
        """Notes the number of iterations done."""
        self.reads_logs = True
        if self._starts:
            self._starts[-1] = replace(self._starts[-1], done=iterations)

    def refresh(self, state: str = RUNNING, reason: str = '') -> None:
        """Writes the pages; what fails is a warning, the first time.

        Args:
            state: State of the run: see :mod:`.record`.
            reason: Reason of its end, in words.
        """
        if self.is_writer and self._starts:
            began = time.monotonic()
            self.guarded(lambda: self._write(state, reason))
            now = time.monotonic()
            self._outdated, self._not_before = False, now + (now - began) / SHARE

    def _begin(self) -> None:
        run = self.run
        first = run.checkpoint.meta['iter'] if run.resumed and run.checkpoint is not None else 0
        before = read_starts(self.folder) if self.reads_logs else []
        self._starts = [*before, Start.now(run, first, commands.start_command(run))]
        if not self.reads_logs:
            self._remove_earlier()
        if not is_ours(osp.join(self.folder, README)):
            get_root_logger().info('%s is not of a run, and is left as it is',
                                   osp.join(self.folder, README))
        self._sections = {'recipe': facts.recipe(run, osp.join(self.folder, self._config)),
                          'data': facts.data(run), 'software': facts.software()}
        self._write(RUNNING, '')

    def _remove_earlier(self) -> None:
        """Removes what an earlier run in the folder left, and this one may not replace."""
        for name in (CURVES, CSV):
            path = osp.join(self.folder, name)
            if osp.exists(osp.join(self.folder, RECORD)) and osp.exists(path):
                os.remove(path)

    def _write(self, state: str, reason: str) -> None:
        self._starts[-1] = replace(self._starts[-1], state=state, reason=reason,
                                   written=local_time(), seconds=round(
                                       time.monotonic() - self._began, 1))
        write_starts(self.folder, self._starts)
        context = self.context()
        if is_ours(osp.join(self.folder, README)):
            # What is there when the page is written, the page among it.
            files = list_files(self.folder, self._config)
            if not any(name == README for name, _, _ in files):
                files.insert(0, (README, '', 'this page'))
            page = render(self.template, **context, files=files)
            atomic_write(osp.join(self.folder, README), page.encode(errors='replace'))

    def context(self) -> dict[str, object]:
        """Writes the files beside the page, and returns what it says."""
        log = read_training_log(self.folder) if self.reads_logs else EMPTY
        curves = osp.join(self.folder, CURVES)
        drawn = (osp.exists(curves) if self._runner is None  # before the run: it starts sooner
                 else write_curves(curves, log, self._title))
        figures = figures_of(log, (self.run.cfg.get('evaluation') or {}).get('save_best'),
                             self.run.batch.images)
        if figures.classes:
            write_classes(osp.join(self.folder, CSV), figures.classes)
        found = Checkpoints.of(self.folder)
        config = osp.join(self.folder, self._config)
        image = self._image()
        return dict(
            self.common(), figures=figures, curves=drawn, checkpoint=found.chosen,
            absent=len(figures.classes) - len(figures.seen), title=self._title,
            which='best' if found.best else 'newest', **self._commands(config, found.chosen),
            label=commands.label_command(image, config, found.chosen, self.folder)
            if image and found.chosen else None)

    def common(self) -> dict[str, object]:
        """Returns what the pages of runs and sweeps have in common."""
        recipe = dict(self._sections.get('recipe', {}))
        kind = recipe.pop('Kind', 'training')
        if self._runner is not None:
            recipe.update(self._network, **facts.weights_of(self._runner.model))
        return dict(
            name=self._title, kind=kind[:1].upper() + kind[1:], starts=self._starts,
            end=self.run.cfg.runner.max_iters,
            seconds=sum(start.seconds for start in self._starts), enter=commands.enter(),
            done=self._starts[-1].state == FINISHED, resume=commands.resume_command(self.run),
            sections={**self._sections, 'recipe': recipe})

    def _commands(self, config: str, checkpoint: str | None) -> dict[str, object]:
        if checkpoint is None:
            return dict(test=[], export='')
        return dict(test=commands.test_commands(config, checkpoint, self.folder),
                    export=commands.export_command(checkpoint, self.folder))

    @property
    def _title(self) -> str:
        name, folder = facts.config_name(self.run.cfg), osp.basename(osp.abspath(self.folder))
        if osp.dirname(osp.abspath(self.run.cfg.filename or '')) == osp.abspath(self.folder):
            return folder  # the config is the run's own, as in a sweep
        return name if folder == name else f'{name}: {folder}'

    def _image(self) -> str | None:
        """Returns an image that can be labelled, the first of the validation or training data."""
        for dataset in (self.run.data.get('val'), self.run.data.get('train')):
            for part in innermost_datasets(dataset) if dataset is not None else ():
                for image, _ in sample_paths(part):
                    return image
        return None

    def guarded(self, write: Callable[[], object]) -> None:
        """Runs what describes a run; whatever it raises, the run goes on."""
        try:
            write()
        except Exception as error:  # A run of days must not end because a page has a fault.
            if not self._lost:
                get_root_logger().warning('%s is not up to date (%s); the run goes on',
                                          osp.join(self.folder, README),
                                          explain(error) or repr(error))
            self._lost = True


def _end_of(error: BaseException | None, number: int | None) -> tuple[str, str]:
    """Returns the state and the reason of the end of a run."""
    if error is None or isinstance(error, SystemExit) and not error.code:
        return FINISHED, ''
    if isinstance(error, KeyboardInterrupt):
        return STOPPED, 'by Ctrl-C'
    if isinstance(error, SystemExit):
        if signal.SIGINT in (number, int(error.code) - 128 if isinstance(error.code, int) else 0):
            return STOPPED, 'by Ctrl-C'
        name = signal.Signals(number).name if number else 'a signal that another process received'
        return STOPPED, f'by {name}'
    return FAILED, explain(error) or f'{type(error).__name__}: {error}'
