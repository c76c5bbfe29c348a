"""Trains a segmentor: run -> model -> optimizer -> runner -> hooks."""
from contextlib import closing
from functools import partial

from mmcv.runner import get_dist_info
from mmseg.utils import get_root_logger

from ..distributed.parallelize import unwrap
from ..logs import log_details
from . import best
from .batch_norm import check_batch_norm
from .blame import first_iteration
from .build import build_model, hash_ahead
from .cached import drop_unneeded_blocks, open_cache
from .copied_ahead import copied_ahead
from .fast import log_fast
from .first_sample import try_first_samples
from .label_check import with_checked_labels
from .last_save import LastSave
from .loaders import build_train_loader
from .overview import describe_network
from .preemption import Preemption, PreemptionHook
from .progress_hook import progress_of
from .randomness import SeededSamples
from .run import Run
from .run_folder import RunFolder
from .run_folder.facts import kind_of_run
from .tracking.attach import attach_trackers
from .training_runner import build_evaluation, build_training_runner, register_custom_hooks
from .used_folder import EarlierRun, OverwriteHook, finished
from .validation_loss import ValidationLossHook


def train(run: Run) -> None:
    """Trains a segmentor, unless it is trained; process group and log are set up already.

    Args:
        run: Run with training data, and with validation data if it is to be evaluated.

    Raises:
        InputError: If something in the config is wrong.
        SystemExit: With code 75 if it is stopped by a signal, 130 after Ctrl-C.
        KeyboardInterrupt: After Ctrl-C before the end of the first iteration.
    """
    earlier = EarlierRun([run.work_dir]) if run.options.overwrite else None
    with closing(Preemption()) as preemption:
        preemption.listen()
        train_with(run, preemption, earlier)


def train_with(run: Run, preemption: Preemption, earlier: EarlierRun | None) -> None:
    """Trains a segmentor as :func:`train` does, which may be one of several in this process.

    Args:
        run: The run.
        preemption: Stop signals of this process, which it listens to.
        earlier: What is removed once an iteration is done, or None.
    """
    if (line := finished(run)) is not None:
        get_root_logger().info('%s', line)
        return
    check_batch_norm(run.cfg, run.batch)
    try_first_samples(run, trained=not run.cfg.get('feature_cache'))
    with RunFolder(run, lambda: preemption.signal) as folder:
        _train(run, preemption, folder, earlier)


def _train(run: Run, preemption: Preemption, folder: RunFolder,
           earlier: EarlierRun | None) -> None:
    """Builds model, data and runner, and trains."""
    logger = get_root_logger()
    if not (run.resumed or run.options.overwrite) and get_dist_info()[0] == 0:
        best.remove(run.work_dir)
    cached = bool(run.cfg.get('feature_cache'))
    only_trained = not {'val', 'val_loss'} & set(run.data)
    spare = partial(drop_unneeded_blocks, run) if cached and only_trained else None
    model = build_model(run, spare)
    segmentor = unwrap(model)
    logger.info('%s; %s', describe_network(segmentor), kind_of_run(run))
    log_fast(run.cfg, run.engine, segmentor)
    log_details('%s', model)
    segmentor.CLASSES, segmentor.PALETTE = run.data['train'].CLASSES, run.data['train'].PALETTE
    hash_ahead(segmentor.backbone)
    samples = (open_cache(run, model, preemption.requested) if cached
               else SeededSamples(run.data['train'], run.seed))
    samples = with_checked_labels(samples, run.cfg.model)
    last_save = LastSave(run.options.spare_dir, run.options.wait_for_disk)
    runner = build_training_runner(run, model, logger, last_save)
    if earlier is not None:  # after the optimizer's step, before checkpoints
        runner.register_hook(OverwriteHook(earlier), priority='ABOVE_NORMAL')
    stopping = PreemptionHook(preemption, last_save)
    runner.register_hook(stopping, priority='LOW')
    if 'val' in run.data:
        # After the optimizer and the log; mmcv's hooks of the same priority run in this order too.
        runner.register_hook(build_evaluation(run, runner, preemption=stopping), priority='LOW')
    if 'val_loss' in run.data:
        runner.register_hook(ValidationLossHook(run), priority='LOWEST')
    register_custom_hooks(runner, run)
    attach_trackers(runner, run)
    folder.attach(runner)
    if run.resumed:
        runner.restore(run.checkpoint)
    loader = copied_ahead(build_train_loader(run, samples, done=runner.iter), run.device)
    logger.info('training on %s x %d, %d images a step, %d iterations', run.device,
                run.batch.ranks, run.batch.images, runner.max_iters)
    with progress_of(runner), first_iteration(runner):
        runner.run([loader], [('train', 1)])
    logger.info('done: checkpoints, evaluations and the log are in %s', run.work_dir)
