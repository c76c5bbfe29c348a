"""The order in which images are trained on."""
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class InfiniteSampler(Sampler):
    """Endless shuffled passes over a data set, distributed over the ranks.

    The passes form one stream of indices that depends only on the seed; rank r of R takes every
    R-th index, starting at the r-th. Runs with the same global batch therefore see the same images
    in the same iteration, on any number of ranks, and a run is resumed from a position in the
    stream. Workers are not restarted at the end of an epoch. Each index is yielded with its
    position, which determines the augmentation (:class:`.randomness.SeededSamples`).

    Args:
        length: Number of images in the data set.
        seed: Seed of the shuffles.
        rank: Rank of this process.
        world_size: Number of ranks.
        start: Number of indices of this rank to skip when a run is resumed.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, world_size: int = 1,
                 start: int = 0):
        self.length, self.seed = length, seed
        self.rank, self.world_size, self.start = rank, world_size, start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        position = self.start * self.world_size + self.rank  # in the stream
        while True:
            epoch, offset = divmod(position, self.length)
            order = epoch_order(self.length, self.seed, epoch).tolist()
            while offset < self.length:
                yield position, order[offset]
                offset += self.world_size
                position += self.world_size

    def __len__(self) -> int:
        """Returns the number of indices of this rank in one pass."""
        return max(self.length // self.world_size, 1)


def epoch_order(length: int, seed: int, epoch: int) -> torch.Tensor:
    """Returns the order of a pass over ``length`` images: (length,) int64."""
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed + epoch))
