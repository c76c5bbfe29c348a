"""Commands of the documentation's pages, and a clone without data to run them in."""
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from helpers.commands import ROOT, run

MARK = r'(?:<!-- needs: (?P<needs>.*?) -->\n)?'
OPTIONS = ('data.workers_per_gpu=0', 'data.persistent_workers=False')


def commands(page: str) -> Iterator[tuple[str, str]]:
    """Yields (what it needs, command) of docs/``page``; a block with a heredoc is one command."""
    text = (ROOT / 'docs' / page).read_text()
    for found in re.finditer(rf'^{MARK}```sh\n(?P<block>.*?)^```', text, re.MULTILINE | re.DOTALL):
        block = found['block']
        joined = block.replace('\\\n', ' ')
        for command in [block] if '<<' in block else joined.splitlines():
            yield found['needs'] or '', re.sub(r'  +# .*', '', command).strip()


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
        code, output, errors = run_tool(tool, *words[2:], *more)
        assert code == 0, errors
        return output + errors
    return run('sh', '-e', '-c', command.replace('python ', f'{sys.executable} '), cwd=Path())
