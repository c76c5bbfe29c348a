"""Trains a sweep: heads that share feature maps round by round, other runs one by one."""
import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

from mmseg.utils import get_root_logger
from torch.utils.data import Dataset

from ...errors import InputError
from ...logs import saying
from ..batch_norm import check_batch_norm
from ..build import hash_ahead
from ..cached import open_cache
from ..fast import log_fast
from ..label_check import with_checked_labels
from ..loaders import build_train_loader
from ..preemption import Preemption
from ..randomness import SeededSamples
from ..run import Run
from ..tuning import shares_feature_maps
from ..used_folder import EarlierRun
from .backbone import SharedBackbone
from .finished import all_done, is_done
from .folder import SweepFolder
from .grid import Combination, combinations, union_of_layers
from .head_trainer import HeadTrainer
from .records import RESULT, SCORES
from .report import record_start, report
from .rounds import assign_rounds
from .separate_runs import train_separately
from .settings import SweepSettings


def sweep(run: Run, before_training: Callable[[Run], Run] = lambda run: run) -> list[dict]:
    """Trains all combinations of a sweep; the process group and the log are set up already.

    Args:
        run: Run with ``sweep`` in its config.
        before_training: Function that gets each prepared run where combinations are runs of their
            own, and returns the one that is trained.

    Returns:
        Results, one dict per head or run: see :mod:`.report`.

    Raises:
        InputError: If something in the config is wrong, a checkpoint belongs to another run, or
            all heads have diverged.
    """
    _check(run)
    with closing(Preemption()) as preemption:
        preemption.listen()
        if shares_feature_maps(run.cfg):
            return _sweep(run, preemption)
        return train_separately(run, preemption, before_training)


def _sweep(run: Run, preemption: Preemption) -> list[dict]:
    """Trains heads on a frozen backbone: see :func:`sweep`."""
    found = combinations(run.cfg)
    runs = {one.name: replace(run.with_config(one.cfg), sweep=run.work_dir) for one in found}
    for head in runs.values():
        check_batch_norm(head.cfg, run.batch)
    resume, overwrites = run.options.auto_resume, run.options.overwrite
    left = [one for one in found if overwrites or not is_done(runs[one.name], resume)]
    if not left:
        get_root_logger().info('%s', all_done(run, f'{len(found)} head(s)'))
        return report(run.work_dir, run.seed, found)
    folders = {name: head.work_dir for name, head in runs.items()}
    earlier = EarlierRun(list(folders.values()), (RESULT, SCORES)) if overwrites else None
    with SweepFolder(run, folders, lambda: preemption.signal) as folder:
        batched = _is_batched(run)
        shared, samples = _build(run, found, runs, preemption)
        log_fast(run.cfg, run.engine, shared.holder, **{'sweep.batched': batched})
        record_start(run.work_dir, run.seed, found)
        _train(run, left, samples,
               HeadTrainer(runs, shared, preemption, folder, batched, earlier))
        results = report(run.work_dir, run.seed, found)
        if results and all(result['state'] == 'diverged' for result in results):
            raise InputError(f'all {len(results)} head(s) of the sweep diverged, '
                             f'{results[0]["name"]} because {results[0]["reason"]}: give --lr '
                             'smaller values')
    return results


def _build(run: Run, found: Sequence[Combination], runs: Mapping[str, Run],
           preemption: Preemption) -> tuple[SharedBackbone, Dataset]:
    """Builds the backbone of all heads, and the samples that they are trained on."""
    first = runs[found[0].name]
    with saying('building the backbone'):
        shared = SharedBackbone(first, union_of_layers(found))
    hash_ahead(shared.network)
    shared.network.to(run.device)
    samples: Dataset = SeededSamples(run.data['train'], run.seed)
    if run.cfg.get('feature_cache'):
        samples = open_cache(_reading_all(first, shared), shared.holder, preemption.requested)
    samples = with_checked_labels(samples, *(head.cfg.model for head in runs.values()))
    return shared, samples


def _train(run: Run, left: Sequence[Combination], samples: Dataset, trainer: HeadTrainer) -> None:
    """Trains the heads that are left, round by round."""
    rounds = assign_rounds(left, run.device, run.options.auto_resume,
                           SweepSettings.of(run.cfg.sweep).heads_at_once)
    for number, part in enumerate(rounds, 1):
        title = f'round {number} of {len(rounds)}' if len(rounds) > 1 else 'sweep'
        trainer.train(part, build_train_loader(run, samples, done=part.start), title)


def _check(run: Run) -> None:
    """Refuses settings that a sweep does not support.

    Raises:
        InputError: If there is such a setting; the message names it.
    """
    shares = shares_feature_maps(run.cfg)
    if shares and run.engine.type == 'fsdp2':
        raise InputError("engine 'fsdp2': the backbone of a sweep is frozen, and each process "
                         'holds all of it: use auto, single or ddp')
    if shares and run.cfg.get('load_from') or run.cfg.get('resume_from'):
        raise InputError('a sweep does not start its heads from a checkpoint: leave load_from and '
                         'resume_from out; --auto-resume resumes the sweep in the work dir'
                         if shares else 'a sweep has several runs, which are not resumed from one '
                         'checkpoint: leave resume_from out; --auto-resume resumes the sweep in '
                         'the work dir')
    if shares and 'val_loss' in run.data:
        get_root_logger().warning('workflow=%s: a sweep computes no loss of validation images',
                                  run.cfg.workflow)
    if run.cfg.runner.type != 'IterBasedRunner':
        raise InputError(f'runner.type={run.cfg.runner.type!r}: a sweep counts iterations: '
                         'expected IterBasedRunner')


def _is_batched(run: Run) -> bool:
    """Returns whether heads are trained together where possible: see :mod:`.head_group`.

    Sums are then added up in another order. On the CPU, results keep their bits by default.
    """
    asked = SweepSettings.of(run.cfg.sweep).batched
    return run.engine.fast and run.device == 'cuda' if asked is None else asked


def _reading_all(run: Run, shared: SharedBackbone) -> Run:
    """Returns the run of a head, changed to read the feature maps of all heads."""
    cfg = copy.deepcopy(run.cfg)
    cfg.model.backbone.update(out_indices=shared.layers, with_fpn=False)
    return run.with_config(cfg)
