"""From what a config says to the names that a run trains on."""
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from ...errors import InputError
from .lists import hashes, list_hash, published, rank

EXPECTED = "few_shot=dict(fraction='1/16', seed=0)"


@dataclass(frozen=True)
class FewShotList:
    """A list as it was drawn.

    Attributes:
        names: In the order in which they are taken.
        total: Number of names that they were taken from.
        seed: Of the order.
        sha256: Of the names, see :func:`.lists.list_hash`.
    """
    names: tuple[str, ...]
    total: int
    seed: int
    sha256: str

    @property
    def fraction(self) -> str | None:
        """Of ADE20K, if this is one of the published lists: '1/16'."""
        known = hashes().get(str(self.seed), {})
        return next((key for key, value in known.items() if value == self.sha256), None)

    def __str__(self) -> str:
        what = f'the published {self.fraction} of ADE20K' if self.fraction else 'no published list'
        return (f'{len(self.names)} of {self.total} images, seed {self.seed} ({what}), SHA-256 '
                f'{self.sha256}')


def choose(names: Iterable[str], count: int, seed: int = 0) -> FewShotList:
    """Takes ``count`` of the names, the same on every machine and in every run.

    The published list of the seed comes first, as far as its names are there; then the others, by
    the rule that the list was made with. A smaller choice is part of every larger one of the same
    seed, whatever else is among the names.

    Args:
        names: File names without suffix.
        count: Names to take; all of them where there are fewer.
        seed: Another seed gives another order.
    """
    place = {name: i for i, name in enumerate(published(seed))}
    names = list(names)
    order = sorted(names, key=lambda name: (place.get(name, len(place)), rank(name, seed)))
    chosen = tuple(order[:count])
    return FewShotList(chosen, len(names), seed, list_hash(chosen))


def settle(max_image_num: int | None, few_shot: dict | None, total: int) -> tuple[int, int] | None:
    """What a data set's options ask for.

    Args:
        max_image_num: Number of images, of seed 0.
        few_shot: ``fraction`` ('1/16' or a number in (0, 1]) and ``seed`` (0).
        total: Number of images that are there; 1/16 of them is rounded down.

    Returns:
        (number of images, seed), or None for all images.

    Raises:
        InputError: If it is none of these, both, or no image at all.
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
