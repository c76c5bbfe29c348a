"""Predictions of a data set: gathered on rank 0, and kept of a run that ends early."""
import pickle
import signal
from dataclasses import dataclass, field

from mmcv.runner import get_dist_info
from torch.utils.data import Dataset

from ..datasets.concatenated import ConcatTestDataset
from ..distributed.collectives import gather_to_rank0
from ..files import atomic_path
from ..targets import spare_folders, write_or_rescue
from .stop_signals import handled_by


@dataclass
class Predictions:
    """Predictions of a data set so far.

    Attributes:
        total: Number of images in the data set.
        results: Index of an image -> result of its prediction.
        skipped: Index of an image -> reason why it could not be read.
        seconds: Wall-clock time of the loop, on the slowest rank.
        memory: Peak memory in bytes, of the process that used most: see
            :func:`..evaluation.run_info.peak_memory`.
        stopped_by: Error that ended a test run early; KeyboardInterrupt for a signal.
    """
    total: int
    results: dict[int, object] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.
    memory: dict[str, int] = field(default_factory=dict)
    stopped_by: BaseException | None = None

    def in_order(self) -> list:
        """Returns the results in the order of the data set, without skipped images."""
        return [self.results[index] for index in sorted(self.results)]

    def gather(self) -> 'Predictions':
        """Gathers the predictions of all ranks on rank 0, each image once; called on all ranks.

        Returns:
            Predictions of all ranks on rank 0, of this rank on the others.
        """
        parts = gather_to_rank0(self)
        if parts is None or len(parts) == 1:
            return self
        joined = Predictions(
            self.total, seconds=max(part.seconds for part in parts),
            memory={name: max(part.memory[name] for part in parts) for name in self.memory})
        for part in parts:
            joined.results.update(part.results)
            joined.skipped.update(part.skipped)
        return joined


def save_partial(found: Predictions, path: str, dataset: Dataset) -> str:
    """Writes the results of a stopped run to a pickle of plain Python and numpy objects.

    It holds ``dict(indices, filenames, results, skipped, total)`` of this rank.

    Returns:
        One line that says what was written, and where: elsewhere if the path cannot be written.
    """
    indices = sorted(found.results)

    def dump(path: str) -> None:
        with atomic_path(path) as part, open(part, 'wb') as file:
            pickle.dump(dict(
                indices=indices, filenames=[name_of(dataset, i) for i in indices],
                results=found.in_order(), skipped=found.skipped, total=found.total), file)

    with handled_by(signal.SIG_IGN):
        path = write_or_rescue(path, dump, spare_folders())
    rank, world_size = get_dist_info()
    where = f' (this is rank {rank} of {world_size})' if world_size > 1 else ''
    return f'{len(indices)} of {found.total} images are done{where}, their results are in {path}'


def name_of(dataset: Dataset, index: int) -> str:
    """Returns the file name of an image, or its index if the data set has no names."""
    if isinstance(dataset, ConcatTestDataset):
        return dataset.names[index]
    infos = getattr(dataset, 'img_infos', None)
    return infos[index]['filename'] if infos else str(index)
