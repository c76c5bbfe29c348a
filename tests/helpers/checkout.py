"""A clone without data, and the commands of the documentation's pages run in it."""
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from glob import glob
from pathlib import Path

from helpers.commands import ROOT, run

OPTIONS = ('data.workers_per_gpu=0', 'data.persistent_workers=False')


def make_checkout(folder: Path) -> None:
    """Makes of a folder what a clone looks like, without data; its configs may be changed."""
    for name in ('tools', 'train.py', 'test.py', 'mmseg_custom'):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / 'configs', folder / 'configs')


def run_command(command: str, run_tool: Callable[..., tuple[int, str, str]],
                options: tuple[str, ...] = ()) -> str:
    """Runs a command in the current folder, tools in this process, and returns what it printed.

    Args:
        command: Command, or a script for the shell.
        run_tool: The fixture.
        options: Words for --cfg-options of a training.
    """
    words = [] if '<<' in command else shlex.split(command)
    while words and re.match(r'[A-Z_]+=', words[0]):
        words.pop(0)  # PYTHONPATH: the test's own
    if words[:1] == ['python'] and words[1].endswith('.py'):
        tool = Path(words[1]).name
        more = ('--cfg-options', *OPTIONS, *options) if tool == 'train.py' else ()
        if '--cfg-options' in words:
            more = more[1:]
        given = [path for word in words[2:] for path in sorted(glob(word)) or [word]]
        code, output, errors = run_tool(tool, *given, *more)
        assert code == 0, errors
        return output + errors
    return run('sh', '-e', '-c', command.replace('python ', f'{sys.executable} '), cwd=Path())
