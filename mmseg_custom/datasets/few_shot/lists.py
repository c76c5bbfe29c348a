"""The published lists of ADE20K: the rule that made them, and the files that hold them.

Names are ranked by the SHA-256 of ``seed/name``. A name's rank depends on nothing else: neither on
the other names nor on a run's random state. So the same rule serves other data sets, and a part of
ADE20K keeps the order of the whole.
"""
import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...errors import InputError

FOLDER = Path(__file__).parent
HASHES = FOLDER / 'hashes.json'
SEEDS = range(5)
TRAIN_IMAGES = 20210
FRACTIONS = {f'1/{n}': TRAIN_IMAGES // n for n in (16, 8, 4, 2)}  # -> number of images


def rank(name: str, seed: int) -> bytes:
    """What names are sorted by."""
    return hashlib.sha256(f'{seed}/{name}'.encode(errors='surrogateescape')).digest()


def generate(seed: int) -> list[str]:
    """The first half of ADE20K's training names, in the order of ``seed``."""
    names = (f'ADE_train_{i:08d}' for i in range(1, TRAIN_IMAGES + 1))
    return sorted(names, key=lambda name: rank(name, seed))[:max(FRACTIONS.values())]


def list_path(seed: int) -> Path:
    """The file of a seed."""
    return FOLDER / f'ade20k_seed{seed}.txt'


@functools.cache
def published(seed: int) -> tuple[str, ...]:
    """The list in the file of a seed, checked; empty for a seed that has none.

    Raises:
        InputError: If the file is not there or is not what was published.
    """
    if seed not in SEEDS:
        return ()
    path = list_path(seed)
    try:
        names = tuple(path.read_text(encoding='ascii').splitlines())
    except (OSError, UnicodeDecodeError):
        names = ()
    if list_hash(names) != hashes()[str(seed)]['1/2']:
        raise InputError(f'few-shot list {path} is not the published one (its SHA-256 differs from '
                         f'{HASHES.name}): install the package anew, or write the list again with '
                         '`python tools/few_shot.py write`')
    return names


@functools.cache
def hashes() -> dict[str, dict[str, str]]:
    """Seed -> fraction -> SHA-256 of the list."""
    return json.loads(HASHES.read_text())


def list_hash(names: Iterable[str]) -> str:
    """SHA-256 of names, each with a line break behind it."""
    text = ''.join(f'{name}\n' for name in names)
    return hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()


def hashes_of(names: Sequence[str]) -> dict[str, str]:
    """Fraction -> SHA-256 of the head of ``names`` that is its list."""
    return {fraction: list_hash(names[:count]) for fraction, count in FRACTIONS.items()}
