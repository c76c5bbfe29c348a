"""Tells the trackers of a runner which run they track, and how many pictures are drawn."""
from mmcv.runner import BaseRunner

from ..evaluation_hook import SegEvalHook
from ..run import Run
from .tracker import Tracker


def attach_trackers(runner: BaseRunner, run: Run) -> None:
    """Hands a run to the trackers among the hooks of its runner, which are registered by now.

    The number of pictures of an evaluation is ``evaluation.show_images``, else what the trackers
    ask for; without a tracker, nothing is drawn.
    """
    trackers = [hook for hook in runner.hooks if isinstance(hook, Tracker)]
    for tracker in trackers:
        tracker.run = run
    for hook in runner.hooks:
        if not isinstance(hook, SegEvalHook):
            continue
        if hook.show_images and not trackers:
            runner.logger.warning('evaluation.show_images=%d has no effect: no tracker in '
                                  'log_config.hooks takes pictures (docs/tracking.md)',
                                  hook.show_images)
        asked = max((tracker.num_images for tracker in trackers), default=0)
        hook.show_images = (asked if hook.show_images is None else hook.show_images
                            ) if trackers else 0
