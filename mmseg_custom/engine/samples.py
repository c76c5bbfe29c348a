"""Samples in testing: batches of images of any sizes, and samples that cannot be read."""
from collections.abc import Sequence
from dataclasses import dataclass

from mmcv.parallel import DataContainer, collate
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import InputError


@dataclass(frozen=True)
class UnreadSample:
    """Stands in for a sample that cannot be read.

    Attributes:
        message: Reason why it cannot be read.
    """
    message: str


class SkippingDataset(Dataset):
    """Data set that returns an :class:`UnreadSample` for a sample that cannot be read."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict | UnreadSample:
        """Returns the sample, or the reason why it cannot be read."""
        try:
            return self.dataset[index]
        except InputError as error:
            return UnreadSample(str(error))


def collate_views(samples: list[dict | UnreadSample]) -> dict:
    """Collates samples of a test pipeline like mmcv, but also images of different sizes.

    Returns:
        Key -> one entry per view. A view of ``img`` is a tensor (N, 3, H, W), or a container with a
        list of N images (3, H, W) if their sizes differ. ``unread`` maps the positions of samples
        that cannot be read to messages.
    """
    read = [sample for sample in samples if not isinstance(sample, UnreadSample)]
    batch = {key: [_collate_view(view) for view in zip(*(sample[key] for sample in read))]
             for key in (read[0] if read else ())}
    unread = {i: sample.message for i, sample in enumerate(samples)
              if isinstance(sample, UnreadSample)}
    return {**batch, 'unread': unread} if unread else batch


def _collate_view(values: Sequence) -> object:
    if isinstance(values[0], Tensor) and len({value.shape for value in values}) > 1:
        return DataContainer([list(values)])
    return collate(values, samples_per_gpu=len(values))
