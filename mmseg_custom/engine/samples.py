"""Samples of a test run: batches of images of any sizes, and samples that cannot be read."""
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from mmcv.parallel import DataContainer, collate
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import InputError
from .preemption import shield_worker


@dataclass(frozen=True)
class BadSample:
    """In the place of a sample that cannot be read."""
    message: str


class Skipping(Dataset):
    """A data set that has a :class:`BadSample` in the place of what cannot be read."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict | BadSample:
        """The sample, or why it cannot be read."""
        try:
            return self.dataset[index]
        except InputError as error:
            return BadSample(str(error))


def collate_views(samples: list[dict | BadSample]) -> dict:
    """Puts samples of test pipelines into a batch: as mmcv does, and images of different sizes.

    Returns:
        Key -> one entry a view. A view of ``img`` is a tensor (N, 3, H, W), or holds a list of N
        images (3, H, W) where sizes differ. Where samples cannot be read, ``bad`` says why:
        position -> message.
    """
    good = [sample for sample in samples if not isinstance(sample, BadSample)]
    batch = {key: [_collate_view(view) for view in zip(*(sample[key] for sample in good))]
             for key in (good[0] if good else ())}
    bad = {i: sample.message for i, sample in enumerate(samples) if isinstance(sample, BadSample)}
    return {**batch, 'bad': bad} if bad else batch


def _collate_view(values: Sequence) -> object:
    if isinstance(values[0], Tensor) and len({value.shape for value in values}) > 1:
        return DataContainer([list(values)])
    return collate(values, samples_per_gpu=len(values))


def leave_signals(worker: int) -> None:
    """For workers of a loader: the main process says what Ctrl-C and other signals end."""
    shield_worker(worker)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
