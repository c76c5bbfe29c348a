"""What trackers are told of a run: its config, seed, versions, command and sweep."""
import os.path as osp
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmcv import Config
from mmcv.runner import BaseRunner

from ...checkpoint.metadata import plain
from ...evaluation.run_info import hardware
from ..run import Run
from ..run_folder.commands import start_command
from ..run_folder.facts import kind_of_run, software


@dataclass(frozen=True)
class Description:
    """Description of a run.

    Attributes:
        name: Name of its work dir.
        config: Resolved config, of plain values.
        text: The same as a config file.
        facts: Seed, command, versions and hardware by their names.
        settings: Settings that a resumed run shares with this one: see :mod:`..identity`.
        sweep: Name of the sweep that it belongs to, or None.
    """
    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    text: str = ''
    facts: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    sweep: str | None = None


def describe(runner: BaseRunner, run: Run | None) -> Description:
    """Describes a run.

    Args:
        runner: Its runner, of which less is known where mmseg's own tools have built it.
        run: The prepared run, if there is one.
    """
    name = osp.basename(osp.abspath(runner.work_dir))
    if run is None:
        meta = runner.meta or {}
        facts = {'Seed': str(meta.get('seed')), 'Command': shlex.join(sys.argv)}
        return Description(name, text=meta.get('config') or '', facts=facts)
    found = hardware(run.device)
    facts = {'Kind': kind_of_run(run), 'Command': start_command(run), 'Seed': str(run.seed),
             'Batch': f'{run.batch.images} images a step',
             'Hardware': str(found.get('gpu') or f'{found["cpu"]} ({found["cpus"]} cores)'),
             **software()}
    return Description(
        name, plain(_as_dict(run.record)), run.record.pretty_text, facts, dict(run.identity),
        run.sweep and osp.basename(osp.abspath(run.sweep)))


def _as_dict(cfg: Config) -> dict[str, Any]:
    return cfg._cfg_dict.to_dict()
