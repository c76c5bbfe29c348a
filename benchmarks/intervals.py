"""Means over seeds, with intervals: Student's t, since there are few of them."""
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev

# Quantiles 0.975 of Student's t, by degrees of freedom.
QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval, mean +- half.

    Attributes:
        value: Mean.
        half: Half the width of the interval.
    """
    value: float
    half: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> 'Mean':
        """Computes both of 2 to 10 samples."""
        quantile = QUANTILES[len(samples) - 2]
        return cls(mean(samples), quantile * stdev(samples) / sqrt(len(samples)))

    def __format__(self, spec: str) -> str:
        """Formats it as ``1.2 ± 0.3``; a sign is for the mean alone."""
        return f'{self.value:{spec}} ± {self.half:{spec.lstrip("+")}}'


def differences(samples: Sequence[float], others: Sequence[float]) -> list[float]:
    """Returns what samples have more than others of the same seeds."""
    return [a - b for a, b in zip(samples, others, strict=True)]
