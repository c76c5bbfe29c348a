"""The manifest of a prepared data set: what is there, with hashes.

    data/ade/ade20k.manifest.json       written at the end, when nothing was found at fault
    data/ade/ade20k.faults.txt          instead of it, when something was: one line each

A data set that has a manifest was whole and without fault when that was written.
"""
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import InputError
from ...files import atomic_write
from .layouts import Layout

VERSION = 1


@dataclass
class Manifest:
    """What was found.

    Attributes:
        data_set: Name of its layout.
        root: Folder that the paths start at, as seen from the manifest.
        splits: Name -> number of samples.
        files: Path -> (size in bytes, SHA-256).
        notes: Kind -> what loading deals with by itself, one line each.
        sha256: Of the lines 'SHA-256  path' in the order of the paths, as sha256sum prints them:
            one line that says whether two copies are the same.
        version: Of this form.
    """
    data_set: str
    root: str
    splits: dict[str, int]
    files: dict[str, tuple[int, str]]
    notes: dict[str, list[str]] = field(default_factory=dict)
    sha256: str = ''
    version: int = VERSION

    def __post_init__(self):
        lines = ''.join(f'{self.files[path][1]}  {path}\n' for path in sorted(self.files))
        self.sha256 = hashlib.sha256(lines.encode(errors='surrogateescape')).hexdigest()


def manifest_path(out: Path, layout: Layout) -> Path:
    """Where the manifest of a data set is."""
    return out / f'{layout.name}.manifest.json'


def faults_path(out: Path, layout: Layout) -> Path:
    """Where the faults of a data set are listed."""
    return out / f'{layout.name}.faults.txt'


def read_manifest(path: Path) -> Manifest | None:
    """A manifest; None if there is none, or one of another version or damaged."""
    try:
        content = json.loads(path.read_text())
        if content['version'] != VERSION:
            return None
        content['files'] = {name: tuple(entry) for name, entry in content['files'].items()}
        return Manifest(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes it, one file a line.

    Raises:
        InputError: If it cannot be written; what was there is still there.
    """
    head = {key: getattr(manifest, key)
            for key in ('version', 'data_set', 'root', 'sha256', 'splits', 'notes')}
    lines = ',\n'.join(f'    {json.dumps(name)}: {json.dumps(entry)}'
                       for name, entry in sorted(manifest.files.items()))
    text = json.dumps(head, indent=2)[:-2] + ',\n  "files": {\n' + lines + '\n  }\n}\n'
    try:
        atomic_write(path, text.encode())
    except OSError as error:
        raise InputError(f'{path} cannot be written ({error.strerror}): make room and run the '
                         'command again') from error
