"""The published lists of ADE20K: the rule that gives them, and the hashes that they have.

Names are ranked by the SHA-256 of ``seed/name``. A name's rank depends on nothing else: neither on
the other names nor on a run's random state. So the same rule serves other data sets, and a part of
ADE20K keeps the order of the whole. ADE20K's training names are numbered, so that the rule gives
the lists without the data set.
"""
import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from ...choices import FEW_SHOT_PARTS, FEW_SHOT_SEEDS
from ...files import atomic_write

HASHES = Path(__file__).with_name('hashes.json')
SEEDS = FEW_SHOT_SEEDS
TRAIN_NAMES = tuple(f'ADE_train_{i:08d}' for i in range(1, 20211))
FRACTIONS = {part: len(TRAIN_NAMES) // int(part[2:]) for part in FEW_SHOT_PARTS}  # -> images


def rank(name: str, seed: int) -> bytes:
    """Returns the key that names are sorted by."""
    return hashlib.sha256(f'{seed}/{name}'.encode(errors='surrogateescape')).digest()


@functools.cache
def published(seed: int) -> tuple[str, ...]:
    """Returns the list of a seed: half of ADE20K's training names; empty for other seeds."""
    if seed not in SEEDS:
        return ()
    return tuple(sorted(TRAIN_NAMES, key=lambda name: rank(name, seed))[:max(FRACTIONS.values())])


@functools.cache
def hashes() -> dict[str, dict[str, str]]:
    """Returns seed -> fraction -> SHA-256 of the published list."""
    return json.loads(HASHES.read_text())


def list_text(names: Iterable[str]) -> bytes:
    """Returns the content of a list's file: one name a line."""
    return ''.join(f'{name}\n' for name in names).encode(errors='surrogateescape')


def list_hash(names: Iterable[str]) -> str:
    """Returns the SHA-256 of a list, as ``sha256sum`` prints it for the file."""
    return hashlib.sha256(list_text(names)).hexdigest()


def write(folder: str | Path) -> None:
    """Writes the published list of each seed, and their hashes.

    Args:
        folder: Folder for ``ade20k_seed0.txt`` .. ``ade20k_seed4.txt`` and ``hashes.json``.

    Raises:
        SaveError: If a file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS:
        atomic_write(folder / f'ade20k_seed{seed}.txt', list_text(published(seed)))
    atomic_write(folder / HASHES.name, HASHES.read_bytes())
