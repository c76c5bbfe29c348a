"""Holds that the API pages name every module of the package, once."""
import re
from collections import Counter
from pathlib import Path

DIRECTIVE = re.compile(r'^::: (?P<module>[\w.]+)$', re.MULTILINE)


def modules(root: Path) -> set[str]:
    """Returns the public modules of the package; a folder counts by its modules."""
    package = root / 'mmseg_custom'
    return {'.'.join(path.relative_to(root).with_suffix('').parts) for path in package.rglob('*.py')
            if not path.name.startswith('_')}


def faults(root: Path, pages: dict[str, str]) -> list[str]:
    """Returns a line for each module that is on no API page or on several."""
    named = Counter(module for text in pages.values() for module in DIRECTIVE.findall(text))
    known = modules(root)
    return ([f'no page of docs/api names {module}' for module in sorted(known - set(named))]
            + [f'pages of docs/api name {module} twice' for module, count in sorted(named.items())
               if count > 1])
