"""Describes a test in a work dir of its own; in that of a training, the page is the training's."""
import json
import os.path as osp
from typing import Any

from mmseg.utils import get_root_logger

from ...evaluation.results import UNPUBLISHED
from ...files import atomic_write
from ..cli import explain
from ..run import Run
from . import commands, facts
from .listing import README, list_files
from .page import is_ours, render
from .record import NAME as RECORD

TRAININGS = (RECORD, 'sweep.json', 'result.json', 'best.json')  # what a training or a head leaves


def describe_test(run: Run, results: str) -> None:
    """Writes ``README.md`` in the work dir of a test, on rank 0; what fails is a warning.

    Args:
        run: Run of the test.
        results: Path of the eval_*.json.
    """
    path = osp.join(run.work_dir, README)
    try:
        trained = any(osp.exists(osp.join(run.work_dir, name)) for name in TRAININGS)
        if not trained and is_ours(path):
            with open(results, encoding='utf-8') as file:
                page = _page(run, json.load(file))
            atomic_write(path, page.encode(errors='replace'))
    except Exception as error:  # The results are written; a fault of the page must not hide that.
        get_root_logger().warning('%s was not written (%s)', path, explain(error) or repr(error))


def _page(run: Run, results: dict[str, Any]) -> str:
    metrics, interval = results['metric'], results.get('interval')
    ends = f'{100 * interval["low"]:.2f} to {100 * interval["high"]:.2f}' if interval else None
    means = {name: (value, ends if interval and name == interval['figure'] else '')
             for name, value in metrics.items() if '.' not in name}
    classes = [(name, *(metrics.get(f'{figure}.{name}') for figure in ('IoU', 'Acc')))
               for name in {key.partition('.')[2]: None for key in metrics if '.' in key}]
    seen = sorted((one for one in classes if one[1] is not None), key=lambda one: (one[1], one[0]))
    checkpoint, hardware = results['checkpoint'], results['hardware']
    conditions = {
        'Config': results['config'], 'Checkpoint': checkpoint.get('path'),
        'SHA-256 of the checkpoint': checkpoint.get('sha256'),
        'Frozen weights': results.get('frozen_dtype') and (
            f'{results["frozen_dtype"]}: {UNPUBLISHED}'),
        'Images': f'{results["images"]:,} in {results.get("image_folder") or "several folders"}',
        'Skipped images': ', '.join(results.get('skipped') or ()),
        'Time': f'{results["time"]["seconds"]:g} s, '
                f'{results["time"]["seconds_per_image"]:g} s an image',
        'Card': f'{hardware.get("gpu") or hardware["cpu"]}, {hardware["processes"]} process(es)',
        'Date': results['date']}
    files = [(README, '', 'this page'), *(row for row in list_files(run.work_dir, '')
                                          if row[0] != README)]
    return render('test.md', name=facts.config_name(run.cfg), means=means, classes=classes,
                  seen=seen, level=interval and f'{interval["level"]:.0%}',
                  conditions={name: value for name, value in conditions.items() if value},
                  software=facts.software(), command=commands.start_command(run),
                  report=commands.report_command(run.work_dir), enter=commands.enter(),
                  files=files)
