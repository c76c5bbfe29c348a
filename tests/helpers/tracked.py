"""Runners for trackers alone, and what is read back from the local stores of trackers."""
import json
import logging
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from resource import RLIMIT_FSIZE, getrlimit, setrlimit
from types import SimpleNamespace

import numpy as np
from PIL import Image

from mmseg_custom.engine.tracking.wandb_files import history_of

Points = dict[str, list[tuple[int, float]]]  # name -> iterations and values


def a_runner(folder, iteration=3, **output):
    """Returns what a hook of the log needs of a runner, between iterations and with figures."""
    return SimpleNamespace(
        rank=0, world_size=1, mode='train', iter=iteration, inner_iter=3, epoch=0, max_iters=8,
        meta=None, work_dir=str(folder), timestamp='now', logger=logging.getLogger('mmseg'),
        hooks=[], model=None, outputs=dict(num_samples=2),
        log_buffer=SimpleNamespace(output=OrderedDict(time=.5, data_time=.1, **output)),
        current_lr=lambda: [.1], current_momentum=lambda: [.9])


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Lets this process write files of some bytes at most, as a full disk does."""
    before = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        setrlimit(RLIMIT_FSIZE, before)


def events_of(folder: Path) -> tuple[Points, dict[int, list[np.ndarray]]]:
    """Returns figures, and the pictures by iteration, as TensorBoard shows a work dir."""
    import io

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    found = EventAccumulator(str(folder / 'tf_logs'), dict(scalars=0, images=0))
    found.Reload()
    pictures: dict[int, list] = {}
    for name in sorted(found.Tags()['images']):
        for event in found.Images(name):
            pictures.setdefault(event.step, []).append(
                np.asarray(Image.open(io.BytesIO(event.encoded_image_string))))
    return {name: [(point.step, point.value) for point in found.Scalars(name)]
            for name in found.Tags()['scalars']}, pictures


def rows_of_wandb(folder: Path) -> tuple[Points, dict[int, list[np.ndarray]]]:
    """Returns the same of the local files of W&B, of all starts of a run."""
    figures: Points = {}
    pictures: dict[int, list] = {}
    for path in sorted((folder / 'wandb').glob('offline-run-*/*.wandb')):
        for row in history_of(str(path)):
            step = row['global_step']
            for name, value in sorted(row.items()):
                if name.startswith('predictions/') and name.endswith('.path'):
                    pictures.setdefault(step, []).append(
                        np.asarray(Image.open(path.parent / 'files' / value)))
                elif isinstance(value, (int, float)):
                    figures.setdefault(name, []).append((step, value))
    return figures, pictures


def run_of_mlflow(folder: Path, uri: str) -> tuple[Points, dict[int, list[np.ndarray]]]:
    """Returns the same of a run of MLflow."""
    from mlflow import MlflowClient
    client = MlflowClient(uri)
    run = client.get_run(json.loads((folder / 'tracking.json').read_text())['mlflow'])
    figures = {name: sorted((point.step, point.value)
                            for point in client.get_metric_history(run.info.run_id, name))
               for name in run.data.metrics}
    pictures: dict[int, list] = {}
    for path in sorted(Path(run.info.artifact_uri, 'images').glob('*.png')):
        step = int(path.name.split('+step+')[1].split('+')[0])
        pictures.setdefault(step, []).append(np.asarray(Image.open(path)))
    return figures, pictures
