"""Which images a few-shot run sees: fixed, nested and the same for everyone."""
import hashlib
from collections.abc import Iterable


def few_shot_subset(names: Iterable[str], count: int, seed: int = 0) -> set[str]:
    """Chooses ``count`` of the names, the same on every machine and in every run.

    Names are ranked by the SHA-256 of ``seed/name`` and the first ``count`` are taken. A smaller
    subset is therefore part of every larger one of the same seed, and a name's rank does not depend
    on the other names, on their order or on a run's random state.

    Args:
        names: File names without folder and suffix.
        count: Names to choose; all of them where there are fewer.
        seed: Another seed draws another subset.
    """
    def rank(name: str) -> bytes:
        return hashlib.sha256(f'{seed}/{name}'.encode()).digest()

    return set(sorted(names, key=rank)[:count])
