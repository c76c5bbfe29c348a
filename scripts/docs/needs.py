"""Marks that say what a block of commands needs: `<!-- needs: ADE20K data, weights, 8 GPUs -->`.

A mark stands on the line before a block. Blocks without one run on any machine after `make setup`,
and tests run them (tests/docs/test_commands.py).
"""
import re
from collections.abc import Iterator
from dataclasses import dataclass

# What a command may need, and how the site explains it.
VOCABULARY = {
    'data': 'a data set that has to be downloaded, or your own',
    'weights': 'pretrained weights, or a checkpoint that was trained on them',
    'GPU': 'a CUDA device',
    'GPUs': 'several CUDA devices',
    'network': 'a network connection',
    'Slurm': 'a Slurm cluster',
    'Docker': 'Docker, and for GPUs the NVIDIA container toolkit',
    'Apptainer': 'Apptainer',
    'root': 'the rights of root',
    'minutes': 'minutes of time on a CPU',
}
MARK = re.compile(r'^<!-- *needs: *(?P<needs>[^>]*?) *-->[ \t]*$', re.MULTILINE)
BLOCK = re.compile(r'(?:^<!-- *needs: *(?P<needs>[^>\n]*?) *-->[ \t]*\n)?'
                   r'^```sh\n(?P<text>.*?)^```', re.MULTILINE | re.DOTALL)


@dataclass
class Block:
    """A block of commands.

    Attributes:
        text: Commands.
        needs: What they need; empty where they run everywhere.
        line: Number of the block's first line in its page, from 1.
    """

    text: str
    needs: list[str]
    line: int


def read(mark: str) -> list[str]:
    """Returns the items of a mark.

    Raises:
        ValueError: An item names nothing of the vocabulary.
    """
    items = [item.strip() for item in mark.split(',')]
    for item in items:
        if not set(item.split()) & set(VOCABULARY):
            raise ValueError(f"needs '{item}': expected one of {', '.join(VOCABULARY)} in each "
                             "item, such as '8 GPUs' or 'ADE20K data'")
    return items


def blocks(markdown: str) -> Iterator[Block]:
    """Yields the blocks of commands of a page."""
    for match in BLOCK.finditer(markdown):
        yield Block(match['text'], read(match['needs']) if match['needs'] else [],
                    markdown[:match.start('text')].count('\n') + 1)


def show(markdown: str) -> str:
    """Returns a page whose marks are visible."""
    return MARK.sub(
        lambda match: f'<p class="needs">Needs: {", ".join(read(match["needs"]))}</p>\n', markdown)
