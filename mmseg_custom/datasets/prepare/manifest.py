"""The manifest of a prepared data set: its files with their hashes.

    data/ade/ade20k.manifest.json       written at the end, when no fault was found
    data/ade/ade20k.faults.txt          written instead of it otherwise, one fault a line

A data set that has a manifest was whole and without fault when that was written.
"""
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import InputError
from ...files import SaveError, atomic_write
from ...schema import array, integer, read_json, record, scalar, text
from .layouts import DatasetLayout

_MANIFEST = record(dict(
    data_set=text, root=text, splits=record({}, others=integer(0)), version=integer(),
    files=record({}, others=array(scalar, 'bytes and SHA-256', 2, 2)), sha256=text,
    notes=record({}, others=array(text, 'notes'))), others=None)
VERSION = 2  # raise it when kinds of faults or notes change: then everything is checked again


@dataclass
class PreparedManifest:
    """Files and notes of a data set without fault.

    Attributes:
        data_set: Name of the layout.
        root: Folder that the paths start at, relative to the manifest.
        splits: Name -> number of samples.
        files: Path -> (size in bytes, SHA-256).
        notes: Kind -> notes, one line each, see :mod:`..faults`.
        sha256: Hash of the lines 'SHA-256  path' in the order of the paths, as sha256sum prints
            them. Two copies of a data set are the same if it is.
        version: Version of this format.
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


def manifest_path(out: Path, layout: DatasetLayout) -> Path:
    """Returns the path of the manifest of a data set."""
    return out / f'{layout.name}.manifest.json'


def faults_path(out: Path, layout: DatasetLayout) -> Path:
    """Returns the path of the list of faults of a data set."""
    return out / f'{layout.name}.faults.txt'


def read_manifest(path: Path) -> PreparedManifest | None:
    """Reads a manifest; None if there is none, or one of another version or damaged."""
    try:
        content = read_json(str(path), _MANIFEST)
        if content is None or content['version'] != VERSION:
            return None
        content['files'] = {name: tuple(entry) for name, entry in content['files'].items()}
        return PreparedManifest(**content)
    except (OSError, UnicodeEncodeError):  # a hash that holds half of a character
        return None


def write_manifest(path: Path, manifest: PreparedManifest) -> None:
    """Writes a manifest, one file a line.

    Raises:
        InputError: If it cannot be written; what was there is still there.
    """
    head = {key: getattr(manifest, key)
            for key in ('version', 'data_set', 'root', 'sha256', 'splits', 'notes')}
    lines = ',\n'.join(f'    {json.dumps(name)}: {json.dumps(entry)}'
                       for name, entry in sorted(manifest.files.items()))
    text = json.dumps(head, indent=2)[:-2] + ',\n  "files": {\n' + lines + '\n  }\n}\n'
    try:
        atomic_write(path, text)
    except SaveError as error:
        raise InputError(f'{error}: make room, or allow writing there, and run the command '
                         'again') from error
