"""Tells the trackers of a runner which run they track, and how many pictures are drawn."""
import os.path as osp
from functools import cache

from mmcv.runner import BaseRunner

from ...checkpoint.metadata import plain
from ...evaluation.run_info import hardware
from ..evaluation_hook import SegEvalHook
from ..run import Run
from ..run_folder.commands import start_command
from ..run_folder.facts import kind_of_run, software
from .description import Description
from .tracker import Tracker


def attach_trackers(runner: BaseRunner, run: Run) -> None:
    """Describes a run to the trackers among the hooks of its runner, which are registered by now.

    The number of pictures of an evaluation is ``evaluation.show_images``, else what the trackers
    ask for; without a tracker, nothing is drawn.
    """
    trackers = [hook for hook in runner.hooks if isinstance(hook, Tracker)]
    if trackers and runner.rank == 0:
        description = describe(run, (runner.meta or {}).get('config') or '')
        for tracker in trackers:
            tracker.description = description
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


def describe(run: Run, text: str) -> Description:
    """Describes a prepared run.

    Args:
        run: The run.
        text: Its resolved config as a file, which takes a second to format.
    """
    found = hardware(run.device)
    facts = {'Kind': kind_of_run(run), 'Command': start_command(run), 'Seed': str(run.seed),
             'Batch': f'{run.batch.images} images a step',
             'Hardware': str(found.get('gpu') or f'{found["cpu"]} ({found["cpus"]} cores)'),
             **_software()}
    return Description(
        osp.basename(osp.abspath(run.work_dir)), plain(run.record._cfg_dict.to_dict()),
        text, facts, dict(run.identity),
        run.sweep and osp.basename(osp.abspath(run.sweep)))


_software = cache(software)  # which asks git, for each head of a sweep
