"""Writes the lists of ADE20K and their hashes: the generator of the files in this folder."""
import json
from pathlib import Path

from ...files import atomic_write
from .lists import FOLDER, HASHES, SEEDS, generate, hashes_of, list_path


def write(folder: str | None = None) -> Path:
    """Writes a list for each seed, and hashes.json; returns their folder.

    Args:
        folder: Default: the package's own, where they are read.

    Raises:
        OSError: If it cannot be written; files that are there stay as they were.
    """
    out = Path(folder) if folder else FOLDER
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    for seed in SEEDS:
        names = generate(seed)
        found[str(seed)] = hashes_of(names)
        atomic_write(out / list_path(seed).name, ''.join(f'{name}\n' for name in names).encode())
    atomic_write(out / HASHES.name, (json.dumps(found, indent=2) + '\n').encode())
    return out
