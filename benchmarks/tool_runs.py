"""Runs of the tools in processes of their own: forks of one that has imported everything, once."""
import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from .execution import ROOT


def run_tool(*words: object) -> None:
    """Runs a tool with one thread, and waits for it.

    Args:
        *words: Path of the tool below the root of the repository, and its arguments.

    Raises:
        RuntimeError: If it failed, with the end of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, 'printed.txt')
        child = _context().Process(target=_run, args=(list(map(str, words)), str(log)))
        child.start()
        child.join()
        if child.exitcode:
            raise RuntimeError(' '.join(log.read_text().strip().splitlines()[-2:]))


def _context() -> multiprocessing.context.BaseContext:
    """Returns what starts processes as forks of one that has imported everything, once."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['mmseg_custom', 'mmseg_custom.engine.train', 'peft'])
    return context


def _run(words: Sequence[str], log: str) -> None:
    """Runs a tool in this process, with one thread; prints to a file."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT)
    for number in (1, 2):
        os.dup2(output, number)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    # The context of this process is not for its own children: loaders, which are forked elsewhere.
    multiprocessing.set_start_method('fork', force=True)
    sys.argv = list(words)
    sys.path.insert(0, str(ROOT / 'tools'))
    runpy.run_path(words[0], run_name='__main__')
