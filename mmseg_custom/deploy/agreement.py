"""How far a graph agrees with the network that it was made of.

B windows, H W pixels of a window, K classes, h w cells of the head's logits.
"""
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .network import WindowNetwork
from .program import LEAST_CELLS

Runtime = Callable[[Tensor], Tensor]  # windows (B, 3, H, W) -> float32 logits (B, K, h, w)
# Largest difference of logits over the largest logit that is taken for rounding, by the dtype that
# the backbone computes in.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Agreement:
    """What was found on some windows.

    Attributes:
        sizes: (B, H, W) of each batch.
        difference: Largest difference of two logits.
        largest: Largest logit of the network, without its sign.
        equal: Share of the cells in which the same class is the best, 0..1.
    """
    sizes: list[tuple[int, int, int]]
    difference: float
    largest: float
    equal: float

    def __str__(self) -> str:
        sizes = ', '.join('{} of {}x{}'.format(*size) for size in self.sizes)
        return (f'windows ({sizes}): logits differ by {self.difference:.2g} at most (the largest '
                f'is {self.largest:.3g}), {self.equal:.3%} of the cells have the same class')

    def check(self, dtype: torch.dtype, what: str) -> None:
        """Refuses a graph that computes something else than its network.

        Args:
            dtype: Dtype that the backbone computes in.
            what: Name of the graph.

        Raises:
            InputError: Naming the difference.
        """
        limit = TOLERANCE[dtype] * self.largest
        if not self.difference <= limit:  # NaN is refused, too
            raise InputError(
                f'{what} does not compute what PyTorch does in {str(dtype).split(".")[-1]}: '
                f'{self}; expected a difference of at most {limit:.2g}; nothing was written: '
                'choose another dtype, or export with another release of PyTorch')


def check_windows(network: WindowNetwork, image_size: tuple[int, int]) -> list[Tensor]:
    """Draws batches of windows (B, 3, H, W) on which a graph is compared with its network.

    One of the size that it is run at, and small ones, in other numbers and of other sizes.

    Args:
        network: Network.
        image_size: Height and width in pixels of the windows that it is run at.
    """
    side = network.multiple
    sizes = [(1, *image_size)]
    if network.only_size is None:
        sizes += [(2, LEAST_CELLS * side, (LEAST_CELLS + 1) * side),
                  (3, (LEAST_CELLS + 3) * side, LEAST_CELLS * side)]
    else:
        sizes.append((2, *image_size))
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 3, height, width, generator=generator)
            for batch, height, width in sizes]


def compare(expected: Iterator[Tensor] | list[Tensor], runtime: Runtime,
            windows: list[Tensor]) -> Agreement:
    """Compares the results of a graph with those of its network.

    Args:
        expected: Logits (B, K, h, w) of the network, for each batch.
        runtime: What runs the graph.
        windows: Batches of windows (B, 3, H, W).

    Raises:
        InputError: If the graph gives logits of another shape.
    """
    differences, largest, equal, cells = [], 0.0, 0, 0
    for logits, batch in zip(expected, windows):
        found = runtime(batch)
        if found.shape != logits.shape:
            raise InputError(f'the graph gives logits {tuple(found.shape)} for windows '
                             f'{tuple(batch.shape)}: expected {tuple(logits.shape)}')
        logits, found = logits.cpu(), found.cpu()
        differences.append((found - logits).abs().max())
        largest = max(largest, logits.abs().max().item())
        equal += int((best_class(found) == best_class(logits)).sum())
        cells += best_class(logits).numel()
    return Agreement([(len(batch), batch.shape[2], batch.shape[3]) for batch in windows],
                     torch.stack(differences).max().item(), largest, equal / cells)


def best_class(logits: Tensor) -> Tensor:
    """Returns the best class (B, h, w) of logits (B, K, h, w); of one channel, whether above 0."""
    return logits.argmax(1) if logits.shape[1] > 1 else logits[:, 0] > 0
