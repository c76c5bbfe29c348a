"""Modules of the package on the API pages.

A page names the modules that readers look for first, as `::: mmseg_custom.layers.attention`. A line
`<!-- others: mmseg_custom.layers -->` stands for the modules of a folder, and of those in it, that
no page names, so that a new module is there by itself.
"""
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

DIRECTIVE = re.compile(r'^::: (?P<module>[\w.]+)$', re.MULTILINE)
OTHERS = re.compile(r'^<!-- others: (?P<folder>[\w.]+) -->$', re.MULTILINE)
PACKAGE = 'mmseg_custom'


def modules(root: Path) -> set[str]:
    """Returns the public modules of the package; a folder counts by its modules."""
    return {'.'.join(path.relative_to(root).with_suffix('').parts)
            for path in (root / PACKAGE).rglob('*.py') if not path.name.startswith('_')}


def belongs_to(module: str, folder: str) -> bool:
    """Returns whether a module is in a folder; the package itself holds its own files alone."""
    if folder == PACKAGE:
        return module.rpartition('.')[0] == PACKAGE
    return module.startswith(f'{folder}.')


def expand(root: Path, markdown: str, pages: Iterable[str]) -> str:
    """Returns an API page with a directive for each module of its folders that no page names.

    Args:
        root: Root of the repository.
        markdown: Page.
        pages: All API pages.
    """
    pages = list(pages)
    named = {module for page in pages for module in DIRECTIVE.findall(page)}
    claimed = {folder for page in pages for folder in OTHERS.findall(page)}

    def directives(match: re.Match) -> str:
        folder = match['folder']
        inner = {other for other in claimed if other.startswith(f'{folder}.')}
        found = sorted(module for module in modules(root) - named if belongs_to(module, folder)
                       and not any(belongs_to(module, other) for other in inner))
        return '\n\n'.join(f'::: {module}' for module in found)

    return OTHERS.sub(directives, markdown)


def missing(root: Path, pages: Mapping[str, str]) -> list[str]:
    """Returns the modules that are on no API page."""
    texts = list(pages.values())
    shown = {module for text in texts for module in DIRECTIVE.findall(expand(root, text, texts))}
    return sorted(modules(root) - shown)
