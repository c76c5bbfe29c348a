"""Weights & Biases: each line is a row of the run's history, with its iteration.

Rows carry the iteration as ``global_step``, the axis of all charts. W&B's own step counts rows and
only goes up: it would drop the validation of an iteration after the losses of the same one, and all
that a resumed run logs below the last step before the interruption.
"""
import os
import os.path as osp
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.runner import HOOKS, BaseRunner
from mmcv.utils import scandir

from .description import Description
from .lines import Line, SavedCheckpoint
from .record import read_run, write_run
from .tracker import Tracker, refused
from .wandb_files import KIND, STEP, logged_lines

FLUSH = 'x_transaction_log_flush_interval'  # since wandb 0.30; a kill loses what is not flushed
FLUSH_SECONDS = 0.1


@HOOKS.register_module('WandbLoggerHook', force=True)
class WandbTracker(Tracker):
    """Logs to W&B; replaces mmcv's hook.

    Args:
        init_kwargs: Arguments of ``wandb.init``, before all others: project, entity, tags, ...
        interval: See :class:`.tracker.Tracker`.
        ignore_last: See mmcv's ``LoggerHook``.
        reset_flag: See mmcv's ``LoggerHook``.
        commit: Accepted for mmcv's configs: each line is a row of its own.
        by_epoch: See mmcv's ``LoggerHook``.
        with_step: Accepted for mmcv's configs: the axis is ``global_step``.
        log_artifact: Whether the logs and the config of the work dir are uploaded at the end.
        out_suffix: Endings of these files.
        define_metric_cfg: Name of a metric -> its summary, such as 'max'.
    """

    title = 'W&B'
    _tracked: Any

    def __init__(self, init_kwargs: dict | None = None, interval: int = 10,
                 ignore_last: bool = True, reset_flag: bool = False, commit: bool = True,
                 by_epoch: bool = True, with_step: bool = True, log_artifact: bool = True,
                 out_suffix: str | Sequence[str] = ('.log.json', '.log', '.py'),
                 define_metric_cfg: dict | None = None):
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self.init_kwargs, self.define_metric_cfg = init_kwargs or {}, define_metric_cfg or {}
        self.log_artifact = log_artifact
        self.out_suffix = out_suffix if isinstance(out_suffix, str) else tuple(out_suffix)

    def open(self, runner: BaseRunner, description: Description) -> Mapping[str, int]:
        """Begins a run of W&B, or goes on in that of a resumed training.

        Raises:
            InputError: If that fails, as without a login.
        """
        import wandb
        self._work_dir = runner.work_dir
        earlier = read_run(runner.work_dir, 'wandb') if runner.iter else None
        options = self._options(wandb, runner.work_dir, earlier, description)
        write_run(runner.work_dir, 'wandb', options['id'])
        lines = logged_lines(osp.join(options.get('dir') or os.curdir, 'wandb'),
                             options['id']) if earlier else {}
        try:
            self._tracked = wandb.init(**options)
            self._tracked.define_metric(STEP, hidden=True)
            self._tracked.define_metric('*', step_metric=STEP)
            for name, summary in self.define_metric_cfg.items():
                self._tracked.define_metric(name, summary=summary, step_metric=STEP)
            self._tracked.config.update(
                {**description.config, 'run': dict(description.facts)}, allow_val_change=True)
        except Exception as error:
            if not type(error).__module__.startswith(('wandb', 'pydantic')):
                raise
            raise refused('log_config.hooks: a hook for W&B', error,
                          'run `wandb login`, or set WANDB_MODE=offline') from error
        where = (f'offline in {osp.dirname(self._tracked.dir)}' if self._tracked.offline
                 else self._tracked.url)
        runner.logger.info('W&B: run %s, %s', self._tracked.id, where)
        return lines

    def _options(self, wandb: Any, work_dir: str, earlier: str | None,
                 description: Description) -> dict[str, Any]:
        """Returns the arguments of ``wandb.init``."""
        own: dict[str, Any] = dict(
            id=earlier or secrets.token_hex(4), resume='allow', name=description.name,
            reinit='create_new')  # the heads of a sweep are runs at the same time
        if 'WANDB_DIR' not in os.environ:
            own['dir'] = work_dir
        if description.sweep:
            own.update(group=description.sweep, job_type='sweep')
        settings: dict[str, Any] = dict(console='off', silent=True)
        if FLUSH in wandb.Settings.model_fields:
            settings[FLUSH] = FLUSH_SECONDS
        own['settings'] = wandb.Settings(**settings)
        return {**own, **self.init_kwargs}

    def send(self, line: Line) -> None:
        """Logs a row."""
        row: dict[str, Any] = {STEP: line.step, KIND: line.kind, **line.values}
        if line.pictures:
            import wandb
            row.update({f'predictions/{picture.number}': wandb.Image(
                picture.image, caption=picture.name) for picture in line.pictures})
        self._tracked.log(row)

    def note(self, checkpoint: SavedCheckpoint, step: int) -> None:
        """Logs an artifact that refers to a checkpoint, whose content is neither read nor sent."""
        import wandb
        artifact = wandb.Artifact(f'run_{self._tracked.id}_checkpoint', type='model',
                                  metadata=dict(checkpoint.facts))
        artifact.add_reference(f'file://{checkpoint.path}', checksum=False)
        aliases = [] if checkpoint.iteration is None else [f'iter_{checkpoint.iteration}']
        self._tracked.log_artifact(artifact, aliases=[checkpoint.role, *aliases])

    def close(self, summary: Mapping[str, float | str]) -> None:
        """Uploads the logs, and ends the run."""
        import wandb
        self._tracked.summary.update(summary)
        if self.log_artifact:
            artifact = wandb.Artifact(f'run_{self._tracked.id}_logs', type='log')
            for name in scandir(self._work_dir, self.out_suffix):
                artifact.add_file(osp.join(self._work_dir, name))
            self._tracked.log_artifact(artifact)
        self._tracked.finish()


@HOOKS.register_module('MMSegWandbHook', force=True)
class MMSegWandbTracker(WandbTracker):
    """Logs to W&B with pictures of evaluations; replaces mmseg's hook.

    mmseg's predicts the validation data a second time for its pictures, and uploads checkpoints;
    this one takes the predictions of the evaluation, and refers to checkpoints.

    Args:
        init_kwargs: See :class:`WandbTracker`.
        interval: See :class:`.tracker.Tracker`.
        log_checkpoint: Accepted for mmseg's configs: every tracker refers to checkpoints.
        log_checkpoint_metadata: Accepted for mmseg's configs.
        num_eval_images: Number of pictures, where ``evaluation.show_images`` does not say it.
        **kwargs: Arguments of :class:`WandbTracker`.
    """

    def __init__(self, init_kwargs: dict | None = None, interval: int = 50,
                 log_checkpoint: bool = False, log_checkpoint_metadata: bool = False,
                 num_eval_images: int = 100, **kwargs):
        super().__init__(init_kwargs, interval, **kwargs)
        self.num_images = num_eval_images
