"""Trains the heads of a round together: one pass of the backbone, an iteration at a time."""
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NoReturn

import torch
from mmcv.parallel.scatter_gather import scatter_kwargs
from mmseg.utils import get_root_logger
from torch.utils.data import DataLoader

from ...files import SaveError
from ...progress import progress_bar
from ..blame import first_iteration
from ..copied_ahead import copied_ahead
from ..ema import averaged
from ..iteration_timer import evaluating
from ..last_save import LastSave
from ..preemption import Preemption
from ..run import Run
from ..stop_signals import StopRequested
from ..used_folder import EarlierRun, OverwriteHook
from .backbone import SharedBackbone
from .evaluation import SharedPrediction
from .folder import SweepFolder
from .head_steps import HeadSteps, goes_on
from .probe import IterationBatches, Probe
from .records import write_result
from .rounds import Round


@dataclass(frozen=True)
class HeadTrainer:
    """Trains the heads of one round after another.

    Attributes:
        runs: Runs of the heads by their names.
        shared: Backbone of all heads.
        preemption: Stop signals of this process.
        folder: Page of the sweep, which follows the heads.
        batched: Whether heads are trained together where possible: see :mod:`.head_group`.
        earlier: Sweep in the same work dir that this one replaces, or None.
    """
    runs: Mapping[str, Run]
    shared: SharedBackbone
    preemption: Preemption
    folder: SweepFolder
    batched: bool = False
    earlier: EarlierRun | None = None

    def train(self, part: Round, loader: DataLoader, title: str) -> None:
        """Trains the heads of a round to their ends; heads that diverge are stopped.

        Args:
            part: The round.
            loader: Batches of the training, from its first iteration on.
            title: Text beside the progress bar.

        Raises:
            SystemExit: If a rank was signalled, once all heads are saved.
            SaveError: If the last checkpoint of a head could not be written; the others are there.
        """
        probes = self._start(part)
        first = probes[0].runner
        end, accumulation = first.max_iters, first.accumulation
        steps = HeadSteps(probes, self.batched)
        stream = self._stream(loader, probes[0].run.device)
        self.folder.starts_after(first.iter)
        with progress_bar(end, 'iteration', title, first.iter) as bar, first_iteration(first):
            probes = self._evaluate_due(probes)
            while probes and probes[0].runner.iter < end:
                self.folder.follow([probe.runner for probe in probes])
                batches = IterationBatches([next(stream) for _ in range(accumulation)],
                                           len(loader))
                probes = steps.step(probes, batches)
                if not probes:
                    break
                bar.update()
                if losses := steps.reader.latest:
                    bar.set_postfix_str(f'loss {min(losses):.4g} to {max(losses):.4g}',
                                        refresh=False)
                probes = self._end_iteration(probes)
        self._finish(probes)

    def _start(self, part: Round) -> list[Probe]:
        """Builds the heads of a round, and calls the hooks before their first iteration."""
        options = next(iter(self.runs.values())).options
        last_save = LastSave(options.spare_dir, options.wait_for_disk)
        probes = [Probe(one.name, self.runs[one.name], self.shared, checkpoint, last_save)
                  for one, checkpoint in part.heads]
        for probe in probes:
            if self.earlier is not None:  # removed before any head saves
                probe.runner.register_hook(OverwriteHook(self.earlier), priority='ABOVE_NORMAL')
            probe.start()
        self.preemption.join()
        return probes

    def _stream(self, loader: DataLoader, device: str) -> Iterator[dict]:
        """Yields training batches on the device, with the feature maps of all layers."""
        target = [torch.cuda.current_device() if device == 'cuda' else -1]
        for batch in copied_ahead(loader, device):
            inputs, _ = scatter_kwargs((batch,), {}, target)
            batch, = inputs[0]
            features = self.shared.of_batch(batch)
            yield {**{name: value for name, value in batch.items() if name != 'img'},
                   'feats': features}

    def _end_iteration(self, probes: Sequence[Probe]) -> list[Probe]:
        """Stops if that was asked for, else evaluates; returns the heads that go on."""
        self.folder.done(probes[0].runner.iter)
        for probe in probes:
            probe.remove_older()
        self.preemption.trained = True
        number, _ = self.preemption.agree()
        if number is not None:
            self._stop(probes, number)
        return self._evaluate_due(probes)

    def _stop(self, probes: Sequence[Probe], number: int) -> NoReturn:
        """Saves all heads and ends the process; called on all ranks."""
        for probe in probes:
            if goes_on(probe, probe.check):
                probe.save()
        self.preemption.exit(number, probes[0].runner.iter, get_root_logger())

    def _evaluate_due(self, probes: Sequence[Probe]) -> list[Probe]:
        """Evaluates the heads whose evaluation is due, in one pass over the images.

        Returns:
            Heads that go on: all but those that have diverged.

        Raises:
            SystemExit: If a rank was signalled meanwhile, once all heads are saved.
        """
        left = [probe for probe in probes if not _evaluation_is_due(probe)
                or goes_on(probe, probe.check)]
        due = [(probe, probe.evaluation) for probe in left
               if probe.evaluation is not None and _evaluation_is_due(probe)]
        if not due:
            return left
        stopped_by: int | None = None
        with ExitStack() as stack:
            for probe, _ in due:
                stack.enter_context(evaluating(probe.runner))
            with ExitStack() as averages:
                for probe, _ in due:
                    averages.enter_context(averaged(probe.runner))
                try:
                    models = [probe.model for probe, _ in due]
                    results = due[0][1].predict(
                        models, labels_of=SharedPrediction(models, self.shared),
                        description=f'evaluation of {len(due)} head(s)',
                        preemption=self.preemption)
                except StopRequested as request:
                    stopped_by = request.signal
            if stopped_by is not None:  # the weights are no averages any more
                self._stop(left, stopped_by)
            for (probe, evaluation), own in zip(due, results):
                evaluation.take(probe.runner, own)
        # Rank 0 logs one line; the heads' own logs have the details.
        scores = [(evaluation.score, probe.name) for probe, evaluation in due
                  if evaluation.score is not None]
        if scores:
            get_root_logger().info(
                'iteration %d: mIoU %.2f to %.2f; best: %s', due[0][0].runner.iter,
                100 * min(scores)[0], 100 * max(scores)[0], max(scores)[1])
        return left

    def _finish(self, probes: Sequence[Probe]) -> None:
        """Calls the hooks after the last iteration, and records the results.

        Raises:
            SaveError: If the last checkpoint of a head could not be written.
        """
        failures = []
        for probe in probes:
            try:
                if goes_on(probe, probe.finish):
                    write_result(probe.run.work_dir, state='finished',
                                 iterations=probe.runner.iter, loss=float(probe.loss),
                                 run=probe.run.identity)
                self.folder.describe_head(probe.run.work_dir)
            except SaveError as error:  # the other heads finish first
                failures.append(error)
        if failures:
            raise failures[0]


def _evaluation_is_due(probe: Probe) -> bool:
    return probe.evaluation is not None and probe.evaluation.is_due(probe.runner)
