"""Waits of libraries that a test has no use for."""
from types import SimpleNamespace


def end_without_a_pause() -> None:
    """Lets mmcv's runner return at the end of a run; it waits a second for hooks to finish."""
    from mmcv.runner import iter_based_runner  # after the package has prepared mmcv's imports
    iter_based_runner.time = SimpleNamespace(sleep=lambda seconds: None)


def leave_configs_unformatted() -> None:
    """Lets mmcv write configs without yapf, which takes longer than a tiny run's training."""
    import mmcv.utils.config
    mmcv.utils.config.FormatCode = lambda text, **_: (text, False)
