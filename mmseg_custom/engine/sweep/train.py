"""Trains the heads of a sweep, round by round; those of a round advance together."""
import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial

import torch
from mmcv.parallel.scatter_gather import scatter_kwargs
from mmseg.utils import get_root_logger
from torch.utils.data import DataLoader, Dataset

from ...distributed.collectives import broadcast_from_rank0
from ...errors import InputError
from ...files import SaveError
from ...logs import saying
from ...progress import progress_bar
from ..batch_norm import check_batch_norm
from ..blame import first_iteration
from ..build import hash_ahead
from ..cached import open_cache
from ..divergence import Diverged
from ..ema import averaged
from ..identity import refuse_another
from ..iteration_timer import evaluating
from ..label_check import with_checked_labels
from ..last_save import LastSave
from ..loaders import build_train_loader
from ..preemption import Preemption
from ..randomness import SeededSamples
from ..run import Run
from ..stop_signals import StopRequested
from ..used_folder import EarlierRun, OverwriteHook
from .backbone import SharedBackbone
from .folder import SweepFolder
from .grid import Combination, combinations, union_of_layers
from .probe import IterationBatches, Probe
from .records import RESULT, SCORES, read_result, remove_records, write_result
from .report import record_start, report
from .rounds import Round, assign_rounds
from .settings import SweepSettings


def sweep(run: Run) -> list[dict]:
    """Trains all combinations of a sweep; the process group and the log are set up already.

    Args:
        run: Run with ``sweep`` in its config.

    Returns:
        Results, one dict per head: see :mod:`.report`.

    Raises:
        InputError: If something in the config is wrong, a checkpoint belongs to another run, or
            all heads have diverged.
    """
    preemption = Preemption()
    preemption.listen()
    _check(run)
    found = combinations(run.cfg)
    runs = {one.name: run.with_config(one.cfg) for one in found}
    for head in runs.values():
        check_batch_norm(head.cfg, run.batch)
    resume, overwrites = run.options.auto_resume, run.options.overwrite
    left = [one for one in found if overwrites or not _is_done(runs[one.name], resume)]
    if not left:
        get_root_logger().info('%s', _all_done(run, len(found)))
        return report(run.work_dir, run.seed, found)
    earlier = EarlierRun([head.work_dir for head in runs.values()], (RESULT, SCORES))
    folders = {name: head.work_dir for name, head in runs.items()}
    with closing(preemption), SweepFolder(
            run, folders, lambda: preemption.signal) as folder:
        return _sweep(run, found, left, runs, preemption, earlier, folder)


def _sweep(run: Run, found: list[Combination], left: list[Combination],
           runs: dict[str, Run], preemption: Preemption, earlier: EarlierRun,
           folder: SweepFolder) -> list[dict]:
    """Builds the backbone, trains the heads that are left and reports on all."""
    with saying('building the backbone'):
        shared = SharedBackbone(runs[found[0].name], union_of_layers(found))
    hash_ahead(shared.network)
    samples: Dataset = SeededSamples(run.data['train'], run.seed)
    if run.cfg.get('feature_cache'):
        samples = open_cache(_reading_all(runs[found[0].name], shared), shared.holder,
                             preemption.requested)
    samples = with_checked_labels(samples, *(head.cfg.model for head in runs.values()))
    shared.network.to(run.device)
    record_start(run.work_dir, run.seed, found)
    rounds = assign_rounds(left, run.device, run.options.auto_resume,
                           SweepSettings.of(run.cfg.sweep).heads_at_once)
    for number, part in enumerate(rounds, 1):
        title = f'round {number} of {len(rounds)}' if len(rounds) > 1 else 'sweep'
        _train_round(part, runs, build_train_loader(run, samples, done=part.start), shared,
                     preemption, earlier, title, folder)
    results = report(run.work_dir, run.seed, found)
    if results and all(result['state'] == 'diverged' for result in results):
        raise InputError(f'all {len(results)} head(s) of the sweep diverged, '
                         f'{results[0]["name"]} because {results[0]["reason"]}: give --lr smaller '
                         'values')
    return results


def _check(run: Run) -> None:
    """Refuses settings that a sweep does not support.

    Raises:
        InputError: If there is such a setting; the message names it.
    """
    if run.engine.type == 'fsdp2':
        raise InputError("engine 'fsdp2': the backbone of a sweep is frozen, and each process "
                         'holds all of it: use auto, single or ddp')
    if run.cfg.get('load_from') or run.cfg.get('resume_from'):
        raise InputError('a sweep does not start its heads from a checkpoint: leave load_from and '
                         'resume_from out; --auto-resume resumes the sweep in the work dir')
    if 'val_loss' in run.data:
        get_root_logger().warning('workflow=%s: a sweep computes no loss of validation images',
                                  run.cfg.workflow)
    if run.cfg.runner.type != 'IterBasedRunner':
        raise InputError(f'runner.type={run.cfg.runner.type!r}: a sweep counts iterations: '
                         'expected IterBasedRunner')


def _reading_all(run: Run, shared: SharedBackbone) -> Run:
    """Returns the run of a head, changed to read the feature maps of all heads."""
    cfg = copy.deepcopy(run.cfg)
    cfg.model.backbone.update(out_indices=shared.layers, with_fpn=False)
    return run.with_config(cfg)


def _all_done(run: Run, heads: int) -> str:
    return (f'{run.work_dir} is finished, all {heads} head(s): --cfg-options runner.max_iters=N '
            'trains on up to N, --overwrite in the place of --auto-resume starts anew')


def _is_done(run: Run, auto_resume: bool) -> bool:
    """Returns whether the training of a head is done.

    Raises:
        InputError: If its folder belongs to another run.
    """
    if not auto_resume:
        remove_records(run.work_dir)
        return False
    result = broadcast_from_rank0(read_result(run.work_dir))
    if result is None:
        return False
    refuse_another(result.get('run'), run.identity, run.work_dir)
    longer = run.cfg.runner.max_iters > result['iterations']
    return not (result['state'] == 'finished' and longer)


def _train_round(part: Round, runs: dict[str, Run], loader: DataLoader, shared: SharedBackbone,
                 preemption: Preemption, earlier: EarlierRun, title: str,
                 folder: SweepFolder) -> None:
    """Trains the heads of a round; heads that diverge are stopped."""
    options = next(iter(runs.values())).options
    last_save = LastSave(options.spare_dir, options.wait_for_disk)
    probes = [Probe(one.name, runs[one.name], shared, checkpoint, last_save)
              for one, checkpoint in part.heads]
    for probe in probes:
        if options.overwrite:  # before any head saves
            probe.runner.register_hook(OverwriteHook(earlier), priority='ABOVE_NORMAL')
        probe.start()
    preemption.join()
    first = probes[0].runner
    end, accumulation = first.max_iters, first.accumulation
    stream = _stream(loader, shared, probes[0].run.device)
    folder.starts_after(first.iter)
    with progress_bar(end, 'iteration', title, first.iter) as bar, first_iteration(first):
        probes = _evaluate_due(probes, shared, preemption)
        while probes and probes[0].runner.iter < end:
            folder.follow([probe.runner for probe in probes])
            batches = IterationBatches([next(stream) for _ in range(accumulation)], len(loader))
            probes = [probe for probe in probes if _goes_on(probe, partial(probe.step, batches))]
            if not probes:
                break
            bar.update()
            folder.done(probes[0].runner.iter)
            losses = [probe.loss for probe in probes]
            bar.set_postfix_str(f'loss {min(losses):.4g} to {max(losses):.4g}', refresh=False)
            for probe in probes:
                probe.remove_older()
            preemption.trained = True
            _stop_if_asked(probes, preemption)
            probes = _evaluate_due(probes, shared, preemption)
    failures = []
    for probe in probes:
        try:
            if _goes_on(probe, probe.finish):
                write_result(probe.run.work_dir, state='finished', iterations=probe.runner.iter,
                             loss=probe.loss, run=probe.run.identity)
            folder.describe_head(probe.run.work_dir)
        except SaveError as error:  # the other heads finish first
            failures.append(error)
    if failures:
        raise failures[0]


def _stream(loader: DataLoader, shared: SharedBackbone, device: str) -> Iterator[dict]:
    """Yields training batches on the device, with the feature maps of all layers."""
    target = [torch.cuda.current_device() if device == 'cuda' else -1]
    for batch in loader:
        inputs, _ = scatter_kwargs((batch,), {}, target)
        batch, = inputs[0]
        features = shared.of_batch(batch)
        yield {**{name: value for name, value in batch.items() if name != 'img'},
               'feats': features}


def _goes_on(probe: Probe, action: Callable[[], None]) -> bool:
    """Runs an action of a head; returns False if the head has diverged."""
    try:
        action()
    except Diverged as error:
        runner = probe.runner
        get_root_logger().error('%s is stopped, the others train on: %s; its checkpoints, if it '
                                'has any, are of earlier iterations; try a smaller learning rate',
                                probe.name, error.fault)
        runner.logger.error('stopped: %s', error.fault)
        write_result(probe.run.work_dir, state='diverged', iterations=runner.iter,
                     reason=error.fault, run=probe.run.identity)
        probe.close()
        return False
    return True


def _stop_if_asked(probes: Sequence[Probe], preemption: Preemption) -> None:
    """Saves all heads and ends the process, if any rank was asked to stop."""
    number, _ = preemption.agree()
    if number is not None:
        _stop(probes, preemption, number)


def _stop(probes: Sequence[Probe], preemption: Preemption, number: int) -> None:
    """Saves all heads and ends the process; called on all ranks."""
    for probe in probes:
        if _goes_on(probe, probe.check):
            probe.save()
    preemption.exit(number, probes[0].runner.iter, get_root_logger())


def _evaluate_due(probes: Sequence[Probe], shared: SharedBackbone, preemption: Preemption
                  ) -> list[Probe]:
    """Evaluates the heads whose evaluation is due, in one pass over the images.

    Returns:
        Heads that go on: all but those that have diverged.

    Raises:
        SystemExit: If a rank was signalled meanwhile, once all heads are saved.
    """
    left = [probe for probe in probes if not _evaluation_is_due(probe)
            or _goes_on(probe, probe.check)]
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
                results = due[0][1].predict(
                    [probe.model for probe, _ in due], after_batch=shared.clear,
                    description=f'evaluation of {len(due)} head(s)', preemption=preemption)
            except StopRequested as request:
                stopped_by = request.signal
        if stopped_by is not None:  # the weights are no averages any more
            _stop(left, preemption, stopped_by)
        for (probe, evaluation), own in zip(due, results):
            evaluation.take(probe.runner, own)
    # Rank 0 logs one line; the heads' own logs have the details.
    scores = [(evaluation.score, probe.name) for probe, evaluation in due
              if evaluation.score is not None]
    if scores:
        get_root_logger().info('iteration %d: mIoU %.2f to %.2f; best: %s', due[0][0].runner.iter,
                               100 * min(scores)[0], 100 * max(scores)[0], max(scores)[1])
    return left


def _evaluation_is_due(probe: Probe) -> bool:
    return probe.evaluation is not None and probe.evaluation.is_due(probe.runner)
