"""What trackers are told of a run: its config, seed, versions, command and sweep."""
import os.path as osp
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmcv.runner import BaseRunner


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

    @classmethod
    def by_runner(cls, runner: BaseRunner) -> 'Description':
        """Describes a run by its runner alone, as mmseg's own tools build it."""
        meta = runner.meta or {}
        return cls(osp.basename(osp.abspath(runner.work_dir)), text=meta.get('config') or '',
                   facts={'Command': shlex.join(sys.argv), 'Seed': str(meta.get('seed'))})
