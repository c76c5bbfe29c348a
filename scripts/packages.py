"""The packages of requirements/*.lock, and their licences, by metadata that is installed."""
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'licences.md'
LOCKS = ('runtime', 'openmmlab', 'dev')  # what two of them hold is listed with the first

# Spellings of the metadata, and what SPDX calls them.
SPDX = {
    '3-Clause BSD License': 'BSD-3-Clause',
    'Apache': 'Apache-2.0',
    'Apache 2.0': 'Apache-2.0',
    'Apache 2.0 License': 'Apache-2.0',
    'Apache License 2.0': 'Apache-2.0',
    'Apache License, Version 2.0': 'Apache-2.0',
    'Apache Software License': 'Apache-2.0',
    'ISC License': 'ISC',
    'ISC License (ISCL)': 'ISC',
    'MIT License': 'MIT',
    'Mozilla Public License 2.0 (MPL 2.0)': 'MPL-2.0',
    'NVIDIA Proprietary Software': 'LicenseRef-NVIDIA-Proprietary',
}
UNCLEAR = ('BSD', 'BSD License')  # of two clauses or three: the licence itself says which
# Read in the packages themselves: metadata that says nothing or not enough, and packages that are
# for other versions of Python, or other systems, than those that the page is made on.
READ = {
    'coloredlogs': 'MIT',
    'cuda-toolkit': 'LicenseRef-NVIDIA-Proprietary',  # it is empty, and asks for NVIDIA's packages
    'exceptiongroup': 'MIT AND PSF-2.0',
    'greenlet': 'MIT AND PSF-2.0',
    'httpx2-jsfetch': 'BSD-3-Clause',
    'humanfriendly': 'MIT',
    'matplotlib': 'LicenseRef-Matplotlib',  # its own, after that of Python
    'pyreadline3': 'BSD-3-Clause',
    'pytz': 'MIT',
    'six': 'MIT',
    'tomli': 'MIT',
}


class Locked(NamedTuple):
    """A package in a lock.

    Attributes:
        name: Name as the index spells it, in lower case with hyphens.
        version: Version.
        marker: Environments that it is for, '' for all.
        hashes: SHA-256 hashes of its files.
        needed_by: Names of the packages that ask for it, files of requirements as `-r FILE`.
        lock: Name of the first lock that holds it.
    """
    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    needed_by: tuple[str, ...]
    lock: str


def read_lock(lock: str) -> Iterator[Locked]:
    """Yields the packages of a lock in its order.

    Args:
        lock: Name of the file in requirements/, without its ending.
    """
    text = (ROOT / 'requirements' / f'{lock}.lock').read_text()
    for block in re.split(r'\n(?=\w)', text):
        head = re.match(r'([\w.-]+)==(\S+)(?: ; (.*?))?(?: \\)?\n', block)
        assert head is not None, f'requirements/{lock}.lock: not a pinned package: {block[:80]!r}'
        comments = re.findall('(?m)^ *#(?: +via)? *(.*)$', block)
        yield Locked(head[1], head[2], head[3] or '',
                     hashes=tuple(re.findall('sha256:([0-9a-f]+)', block)),
                     needed_by=tuple(line for line in comments if line and line[:3] != '-c '),
                     lock=lock)


def all_packages() -> list[Locked]:
    """Returns what the locks hold, each version of a package once, by name."""
    found: dict[tuple[str, str], Locked] = {}
    for lock in LOCKS:
        for package in read_lock(lock):
            first = found.setdefault((package.name, package.version), package)
            needed_by = dict.fromkeys((*first.needed_by, *package.needed_by))
            found[package.name, package.version] = first._replace(needed_by=tuple(needed_by))
    return sorted(found.values())


def licences_on_page() -> dict[str, str]:
    """Returns the licences that docs/licences.md names, by package."""
    rows = re.findall(r'(?m)^\| ([\w.-]+) \| ([^|]+) \|', PAGE.read_text(encoding='utf-8'))
    return dict(rows[1:])  # after the head of the table


def licences() -> dict[str, str]:
    """Returns the licence of every package of the locks that is installed here, or known.

    Raises:
        ValueError: If the metadata of one says nothing that this file knows.
    """
    found = dict(READ)
    for package in all_packages():
        if package.name in found:
            continue
        try:
            distribution = metadata.distribution(package.name)
        except metadata.PackageNotFoundError:
            continue
        if distribution.version.partition('+')[0] == package.version:
            found[package.name] = licence(distribution)
    return found


def licence(package: metadata.Distribution) -> str:
    """Returns the licence of an installed package as an SPDX expression.

    Raises:
        ValueError: If its metadata says nothing that this file knows.
    """
    fields = package.metadata  # read anew each time
    classes = [line.rpartition(' :: ')[2] for line in fields.get_all('Classifier') or ()
               if line.startswith('License :: ') and not line.endswith('Proprietary License')]
    for words in (fields.get('License-Expression'), fields.get('License'), *classes):
        if words in SPDX:
            return SPDX[words]
        if words in UNCLEAR:
            break
        if words != 'UNKNOWN' and re.fullmatch(r'[\w.-]+(?: (?:AND|OR) [\w.-]+)*', words or ''):
            return words
    return bsd(package)


def bsd(package: metadata.Distribution) -> str:
    """Returns which BSD licence the files of a package hold.

    Raises:
        ValueError: If there is none.
    """
    for path in package.files or ():
        if re.search('licen[cs]e|copying', path.name, re.IGNORECASE) and path.suffix != '.py':
            text = ' '.join(Path(str(path.locate())).read_text(errors='replace').split())
            if 'Redistribution and use in source and binary forms' in text:
                return 'BSD-3-Clause' if 'endorse or promote' in text else 'BSD-2-Clause'
    raise ValueError(f'{package.metadata["Name"]}: its metadata names no licence: read the '
                     'package, and write what it says into READ of scripts/packages.py')
