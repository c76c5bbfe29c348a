"""Waits of libraries, and work of runs, that a test has no use for."""
from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from mmseg_custom.evaluation.training_log import TrainingLog


def end_without_a_pause() -> None:
    """Lets mmcv's runner return at the end of a run; it waits a second for hooks to finish."""
    from mmcv.runner import iter_based_runner  # after the package has prepared mmcv's imports
    iter_based_runner.time = SimpleNamespace(sleep=lambda seconds: None)


def leave_configs_unformatted() -> None:
    """Lets mmcv write configs without yapf, which takes longer than a tiny run's training."""
    import mmcv.utils.config
    mmcv.utils.config.FormatCode = lambda text, **_: (text, False)


def draw_no_curves() -> None:
    """Lets runs leave an empty picture of their curves, which take a quarter of a tiny run.

    They are tested in tests/visualization, those of sweeps in tests/tools/test_sweep.py, and those
    of a run in tests/tools/test_train_and_test.py, in processes of its own.
    """
    from mmseg_custom.engine.run_folder import folder
    from mmseg_custom.files import atomic_path

    def write_empty(path: str, log: TrainingLog, title: str = '') -> bool:
        if log.is_empty:
            return False
        with atomic_path(path) as part:
            Image.new('L', (8, 8)).save(part, format='png')
        return True

    folder.write_curves = write_empty
