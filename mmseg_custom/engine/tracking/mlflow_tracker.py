"""MLflow: a run of an experiment, on a server or in a file of SQLite.

All calls name the run, so that the heads of a sweep are runs at the same time.
"""
import json
import logging
import os
import os.path as osp
import time
from collections.abc import Mapping
from typing import Any

from mmcv.runner import HOOKS, BaseRunner

from .description import Description
from .lines import Line, SavedCheckpoint
from .record import NAME, read_run, write_run
from .tracker import Tracker, refused

# Seconds, and tries: MLflow's own wait for minutes for a server that does not answer, once it
# began. Variables of the user go before.
PATIENCE = dict(MLFLOW_HTTP_REQUEST_TIMEOUT='10', MLFLOW_HTTP_REQUEST_MAX_RETRIES='2')
MOST_METRICS, MOST_PARAMETERS = 1000, 100  # of a call
LONGEST, LONGEST_TAG = 500, 5000  # characters of the value of a parameter, and of a tag


@HOOKS.register_module('MlflowLoggerHook', force=True)
class MlflowTracker(Tracker):
    """Logs to MLflow; replaces mmcv's hook.

    Args:
        exp_name: Name of the experiment, which is made if there is none; default: that of the
            variable MLFLOW_EXPERIMENT_NAME, else MLflow's 'Default'.
        tags: Tags of the run.
        params: Parameters of the run, besides the settings that a resumed run shares with it.
        log_model: Accepted for mmcv's configs: checkpoints are referred to, never copied.
        interval: See :class:`.tracker.Tracker`.
        ignore_last: See mmcv's ``LoggerHook``.
        reset_flag: See mmcv's ``LoggerHook``.
        by_epoch: See mmcv's ``LoggerHook``.
        tracking_uri: Address of the server, or 'sqlite:///FILE'; default: that of the variable
            MLFLOW_TRACKING_URI, else MLflow's own.
    """

    title = 'MLflow'
    _client: Any
    _id: str

    def __init__(self, exp_name: str | None = None, tags: dict | None = None,
                 params: dict | None = None, log_model: bool = True, interval: int = 10,
                 ignore_last: bool = True, reset_flag: bool = False, by_epoch: bool = True,
                 tracking_uri: str | None = None):
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self.exp_name, self.tracking_uri = exp_name, tracking_uri
        self.tags, self.params = tags or {}, params or {}

    def open(self, runner: BaseRunner, description: Description) -> Mapping[str, int]:
        """Begins a run of MLflow, or goes on in that of a resumed training.

        Raises:
            InputError: If that fails, as without a connection.
        """
        earlier = read_run(runner.work_dir, 'mlflow') if runner.iter else None
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        try:
            from mlflow import MlflowClient  # which sets the levels of its logs
            for library in ('mlflow', 'alembic'):  # print how tables are made, each failed call
                logging.getLogger(library).setLevel(logging.CRITICAL)
            self._client = MlflowClient(self.tracking_uri)
            if earlier:
                self._id = earlier
                self._client.update_run(earlier, status='RUNNING')
                return self._lines()
            self._id = self._begin(description)
        except Exception as error:
            if not type(error).__module__.startswith(('mlflow', 'sqlalchemy', 'alembic')) and (
                    not isinstance(error, ImportError)):
                raise
            new = f', remove {osp.join(runner.work_dir, NAME)} for a new run' if earlier else ''
            raise refused('log_config.hooks: MlflowLoggerHook', error,
                          f'check tracking_uri={self.tracking_uri!r} or MLFLOW_TRACKING_URI, and '
                          f'exp_name{new}') from error
        write_run(runner.work_dir, 'mlflow', self._id)
        return {}

    def _begin(self, description: Description) -> str:
        """Begins a run, and returns its id."""
        from mlflow.entities import Param
        name = self.exp_name or os.environ.get('MLFLOW_EXPERIMENT_NAME', 'Default')
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(
            name, artifact_location=_beside(self.tracking_uri))
        tags = {**description.facts, **({'sweep': description.sweep} if description.sweep else {}),
                **self.tags}
        run = self._client.create_run(experiment, run_name=description.name, tags={
            name: str(value)[:LONGEST_TAG] for name, value in tags.items()})
        params = [Param(_allowed(name), _short(value)) for name, value in
                  {**description.settings, **self.params}.items()]
        for first in range(0, len(params), MOST_PARAMETERS):
            self._client.log_batch(run.info.run_id,
                                   params=params[first:first + MOST_PARAMETERS])
        if description.text:
            self._client.log_text(run.info.run_id, description.text, 'config.py')
        return run.info.run_id

    def _lines(self) -> dict[str, int]:
        """Returns the last iteration of each kind of line that MLflow has."""
        found: dict[str, int] = {}
        for name in self._client.get_run(self._id).data.metrics:
            if (kind := _kind_of(name)) is not None:
                points = self._client.get_metric_history(self._id, name)
                found[kind] = max([found.get(kind, 0), *(point.step for point in points)])
        return found

    def send(self, line: Line) -> None:
        """Logs figures in one call, after the pictures."""
        from mlflow.entities import Metric
        for picture in line.pictures:
            self._client.log_image(self._id, picture.image, step=line.step,
                                   key=f'prediction_{picture.number}')
        now = int(time.time() * 1000)
        metrics = [Metric(_allowed(name), value, now, line.step)
                   for name, value in line.values.items()]
        for first in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self._id, metrics=metrics[first:first + MOST_METRICS])

    def note(self, checkpoint: SavedCheckpoint, step: int) -> None:
        """Sets a tag that names a checkpoint."""
        self._client.set_tag(self._id, f'checkpoint.{checkpoint.role}',
                             json.dumps(checkpoint.facts))

    def close(self, summary: Mapping[str, float | str]) -> None:
        """Tags the run with its best score, and ends it."""
        for name, value in summary.items():
            self._client.set_tag(self._id, name, value)
        self._client.set_terminated(self._id)


def _kind_of(name: str) -> str | None:
    """Returns the kind of the lines that all have a metric; None if some may lack it."""
    if name in ('train/loss', 'val/loss_val'):
        return 'train' if name == 'train/loss' else 'val_loss'
    of_a_class = '.' in name
    return 'val' if name.startswith('val/') and not of_a_class and not name.endswith('_val') else (
        None)


def _allowed(name: str) -> str:
    """Returns a name of the characters that MLflow takes."""
    return ''.join(c if c.isalnum() or c in '_-. /:' else '_' for c in name)


def _beside(uri: str | None) -> str | None:
    """Returns the folder of files beside a file of SQLite; None leaves it to MLflow.

    Its own choice is a folder of the current one, which another process does not find.
    """
    file = (uri or '').removeprefix('sqlite:///')
    return osp.join(osp.dirname(osp.abspath(file)), 'mlruns') if file and file != uri else None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else text[:LONGEST - 3] + '...'
