"""The pages, their commands, and the scripts in scripts/docs that build the site."""
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from helpers.commands import ROOT

PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md'), ROOT / 'data/README.md',
                ROOT / 'pretrained/README.md'])


def script(name: str) -> ModuleType:
    """Loads a file of scripts/docs, which is no package."""
    spec = importlib.util.spec_from_file_location(f'docs_{name}', ROOT / f'scripts/docs/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


needs = script('needs')


@dataclass
class Command:
    """A command of a page, as a shell reads it.

    Attributes:
        text: The command on one line, without its comment; a block with a heredoc is one command.
        page: Path of the page in the repository.
        needs: What the mark before its block says.
        in_block: Whether it is in a block; others are in the text.
    """

    text: str
    page: str
    needs: list[str] = field(default_factory=list)
    in_block: bool = True


def commands_of(page: Path) -> Iterator[Command]:
    """Yields the commands of a page, those in blocks and those in the text."""
    text, name = page.read_text('utf-8'), page.relative_to(ROOT).as_posix()
    for block in needs.blocks(text):
        for line in lines_of(block.text):
            yield Command(line, name, block.needs)
    prose = re.sub(r'^```.*?^```', '', text, flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r'(?<!`)`([^`]+)`(?!`)', prose):
        if re.match(r'([A-Z_]+=\S* )*(python|sh|make|pytest) ', span):
            yield Command(' '.join(span.split()), name, in_block=False)


def commands_in(page: str) -> list[Command]:
    """Lists the commands in the blocks of a page, by its path in the repository."""
    return [command for command in commands_of(ROOT / page) if command.in_block]


def lines_of(block: str) -> list[str]:
    """Splits a block into commands; one with a heredoc stays whole."""
    if '<<' in block:
        return [block]
    joined = (re.sub(r'\s+#\s.*', '', line).strip()
              for line in block.replace('\\\n', ' ').splitlines())
    return [' '.join(line.split()) for line in joined if line]
