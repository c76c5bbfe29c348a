"""From what a config says to the names that a run trains on."""
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from ...errors import InputError
from .lists import hashes, list_hash, published, rank

EXPECTED = "few_shot=dict(fraction='1/16', seed=0)"


@dataclass(frozen=True)
class FewShotList:
    """Names of the images that were chosen.

    Attributes:
        names: File names without suffix, in the order of their rank.
        total: Number of names that they were chosen from.
        seed: Seed of the order.
        sha256: Hash of the names, see :func:`.lists.list_hash`.
    """
    names: tuple[str, ...]
    total: int
    seed: int
    sha256: str

    @property
    def fraction(self) -> str | None:
        """Fraction of ADE20K ('1/16') if this is a published list, else None."""
        known = hashes().get(str(self.seed), {})
        return next((key for key, value in known.items() if value == self.sha256), None)

    def __str__(self) -> str:
        what = f'the published {self.fraction} of ADE20K' if self.fraction else 'no published list'
        return (f'{len(self.names)} of {self.total} images, seed {self.seed} ({what}), SHA-256 '
                f'{self.sha256}')


def choose(names: Iterable[str], count: int, seed: int = 0) -> FewShotList:
    """Chooses ``count`` of the names, the same on every machine and in every run.

    Names of the seed's published list come first, then the others, both in the order of their
    rank. A smaller choice is part of every larger one of the same seed, whatever else is among the
    names.

    Args:
        names: File names without suffix.
        count: Number of names to choose; all of them where there are fewer.
        seed: Seed of the order.
    """
    first, names = frozenset(published(seed)), list(names)
    order = sorted(names, key=lambda name: (name not in first, rank(name, seed)))
    chosen = tuple(order[:count])
    return FewShotList(chosen, len(names), seed, list_hash(chosen))


def read_options(max_image_num: int | None, few_shot: dict | None,
                 total: int) -> tuple[int, int] | None:
    """Reads the few-shot options of a data set.

    Args:
        max_image_num: Number of images to keep, in the order of seed 0.
        few_shot: ``fraction`` ('1/16' or a number in (0, 1]) and ``seed`` (0).
        total: Number of images in the data set; a fraction of it is rounded down.

    Returns:
        (number of images, seed), or None for all images.

    Raises:
        InputError: If both are given, if one means nothing, or if no image would be left.
    """
    if few_shot is None:
        if max_image_num is None:
            return None
        _expect(_is_whole(max_image_num) and max_image_num > 0,
                f'max_image_num={max_image_num!r}: expected a number of images, 1 or more')
        return max_image_num, 0
    _expect(max_image_num is None, f'max_image_num={max_image_num!r} and few_shot={few_shot!r} '
            'both say which images to take: keep one of them')
    known = isinstance(few_shot, dict) and 'fraction' in few_shot
    _expect(known and set(few_shot) <= {'fraction', 'seed'},
            f'few_shot={few_shot!r}: expected {EXPECTED}')
    seed = few_shot.get('seed', 0)
    _expect(_is_whole(seed) and seed >= 0, f'few_shot.seed={seed!r}: expected 0 or more; lists are '
            'published for 0 to 4')
    count = int(total * _fraction(few_shot['fraction']))
    _expect(count > 0, f"few_shot.fraction={few_shot['fraction']!r} of {total} images is none: "
            'take a larger part')
    return count, seed


def _fraction(value: object) -> Fraction:
    try:
        fraction = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        fraction = Fraction(0)
    _expect(0 < fraction <= 1, f'few_shot.fraction={value!r}: expected a part such as '
            "'1/16', '1/8', '1/4' or '1/2', more than 0 and at most 1")
    return fraction


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)
