"""Samples of a test: batches of images of any sizes, and samples that cannot be read."""
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
        message: Why it cannot be read.
    """
    message: str


class SkippingDataset(Dataset):
    """A data set with an :class:`UnreadSample` in the place of what cannot be read."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict | UnreadSample:
        """Returns the sample, or why it cannot be read."""
        try:
            return self.dataset[index]
        except InputError as error:
            return UnreadSample(str(error))


def collate_views(samples: list[dict | UnreadSample]) -> dict:
    """Collates samples of test pipelines as mmcv does, also images of different sizes.

    Returns:
        Key -> one entry a view. A view of ``img`` is a tensor (N, 3, H, W), or holds a list of N
        images (3, H, W) where sizes differ. Where samples cannot be read, ``unread`` says why:
        position -> message.
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
