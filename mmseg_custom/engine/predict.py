"""Predicts a data set: the one loop of tests, evaluations during training, and sweeps.

    batch -> label maps of each segmentor -> results to keep -> gathered on rank 0

Letters: `N` images of a batch, `H W` pixels.
"""
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FrameType

import numpy as np
import torch
from mmcv.parallel import DataContainer
from mmcv.runner import get_dist_info
from mmseg.utils import get_root_logger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..datasets.concatenated import ConcatTestDataset
from ..distributed.collectives import gather_to_rank0
from ..distributed.parallelize import evaluation_mode, is_sharded, unwrap
from ..errors import InputError
from ..evaluation.run_info import peak_memory
from ..files import atomic_path
from ..models import InternViTSegmentor
from ..processes import ONE_KEYSTROKE
from ..progress import progress_bar
from ..targets import spare_folders, write_or_rescue
from .preemption import Preemption
from .samples import SkippingDataset
from .stop_signals import heard

Keep = Callable[[list[np.ndarray], list[int]], Sequence]
Paint = Callable[[nn.Module, Tensor, dict, np.ndarray, int], None]


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


def predict(model: nn.Module, loader: DataLoader, device: str, keep: Keep | None = None,
            paint: Paint | None = None) -> Predictions:
    """Predicts a data set in a test; if something ends it early, returns the results so far.

    This may be a sample that cannot be read, Ctrl-C, or a signal from the scheduler.

    Args:
        model: Segmentor from :func:`.test.build_test_model`.
        loader: Loader from :func:`.loaders.build_test_loader`.
        device: 'cuda' or 'cpu'.
        keep: Function that turns label maps (H, W) and the indices of their images into the
            results, such as a data set's ``pre_eval``; default: the label maps are the results.
        paint: Function that shows or writes a picture.

    Returns:
        Predictions of all ranks on rank 0; of this rank on the others, and if it was stopped.
    """
    model = model.cuda() if device == 'cuda' else model
    found = Predictions(len(loader.dataset))
    try:
        with _stoppable() as stop:
            if not _fill([found], [model], loader, device, keep, paint=paint,
                         stopped=lambda: bool(stop)):
                return found.gather()
            raise KeyboardInterrupt
    except (Exception, KeyboardInterrupt) as error:
        found.stopped_by = error
    return found


def predict_all(models: Sequence[nn.Module], loader: DataLoader, device: str,
                keep: Keep | None = None, after_batch: Callable[[], object] = lambda: None,
                description: str = '', preemption: Preemption | None = None
                ) -> list[Predictions]:
    """Predicts a data set with one or several segmentors during training, wrapped or not.

    Args:
        models: Segmentors on their device.
        loader: See :func:`predict`.
        device: See :func:`predict`.
        keep: See :func:`predict`.
        after_batch: Function that is called after each batch.
        description: Text beside the progress bar.
        preemption: Stop signals of the run.

    Returns:
        Predictions of each segmentor: of all ranks on rank 0, of this rank on the others.

    Raises:
        StopRequested: On all ranks, if one was signalled. Each stops after its batch; a rank that
            was not signalled finishes its part first, unless the model is sharded.
    """
    found = [Predictions(len(loader.dataset)) for _ in models]
    sharded = any(is_sharded(model) for model in models)

    def stopped() -> bool:
        if preemption is None:
            return False
        return preemption.agree()[0] is not None if sharded else preemption.requested()

    with ExitStack() as stack:
        for model in models:
            stack.enter_context(evaluation_mode(model))
        _fill(found, models, loader, device, keep, after_batch=after_batch, stopped=stopped,
              description=description)
    if preemption is not None:
        preemption.check()
    return [own.gather() for own in found]


def _fill(found: Sequence[Predictions], models: Sequence[nn.Module], loader: DataLoader,
          device: str, keep: Keep | None, paint: Paint | None = None,
          after_batch: Callable[[], object] = lambda: None,
          stopped: Callable[[], bool] = lambda: False, description: str = '') -> bool:
    """Predicts this rank's part of a data set into ``found``, one entry per segmentor.

    Returns:
        Whether it was stopped, after a batch.
    """
    _, ranks = get_dist_info()
    start, total = time.perf_counter(), len(loader.dataset)
    for model in models:
        model.eval()
    try:
        with progress_bar(total, 'image', description, leave=not description) as bar, \
                torch.no_grad():
            for indices, batch in zip(_indices(loader), loader):
                unread = batch.pop('unread', {})
                for position, message in unread.items():
                    for own in found:
                        _skip(own, indices[position], message)
                read = [index for i, index in enumerate(indices) if i not in unread]
                for own, model in zip(found, models):
                    _take(own, model, read, batch, device, keep, loader.dataset, paint)
                after_batch()
                # The other ranks are taken to be as far as this one.
                bar.update(min(len(indices) * ranks, total - bar.n))
                if stopped():
                    return True
        return False
    finally:
        for own in found:
            own.seconds, own.memory = time.perf_counter() - start, peak_memory(device)


def _take(found: Predictions, model: nn.Module, indices: list[int | None], batch: dict,
          device: str, keep: Keep | None, dataset: Dataset, paint: Paint | None) -> None:
    """Predicts the images of a batch and stores their results."""
    # Ranks with a sharded model must predict equally often, so they predict the padding, too.
    positions = [i for i, index in enumerate(indices) if index is not None or is_sharded(model)]
    if not positions:
        return
    images, metas = _unpack(batch, positions, device)
    labels = predict_labels(model, images, metas)
    for n, index in enumerate(indices[i] for i in positions):
        if index is None:
            continue
        try:
            found.results[index] = keep([labels[n]], [index])[0] if keep else labels[n]
        except InputError as error:  # The label cannot be read.
            if not isinstance(dataset, SkippingDataset):
                raise
            _skip(found, index, str(error))
            continue
        if paint:
            paint(unwrap(model), images[0][n], metas[0][n], labels[n], index)


def predict_labels(model: nn.Module, images: list, metas: list[list[dict]]) -> list[np.ndarray]:
    """Predicts the label maps (H, W) of N images of any sizes, by any of mmseg's segmentors.

    Args:
        model: Segmentor on its device, in eval mode, wrapped or not.
        images: Views of N images each, (3, H, W).
        metas: Views of N dicts each.
    """
    segmentor = unwrap(model)
    if isinstance(segmentor, InternViTSegmentor):
        return segmentor(return_loss=False, img=images, img_metas=metas,
                         lockstep=is_sharded(model))
    return [segmentor(return_loss=False, img=[view[n][None] for view in images],
                      img_metas=[[view[n]] for view in metas])[0] for n in range(len(images[0]))]


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

    with _handled_by(signal.SIG_IGN):
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


def _skip(found: Predictions, index: int | None, message: str) -> None:
    if index is not None:
        found.skipped[index] = message
        get_root_logger().warning('skipped: %s', message)


def _indices(loader: DataLoader) -> Iterator[list[int | None]]:
    """Yields the indices of each batch; None stands for the padding that makes ranks equal."""
    rank, world_size = get_dist_info()
    position = rank
    for batch in loader.batch_sampler or ():
        indices: list[int | None] = []
        for index in batch:
            indices.append(index if position < len(loader.dataset) else None)
            position += world_size
        yield indices


def check_keys(batch: Mapping[str, object]) -> None:
    """Checks that a pipeline returns what is predicted.

    Raises:
        InputError: If it does not.
    """
    if 'img' not in batch or 'img_metas' not in batch:
        raise InputError(f'the pipeline of data.val or data.test returns {", ".join(batch)}: '
                         "expected img and img_metas; set keys=['img'] in its Collect")


def _unpack(batch: dict, positions: list[int], device: str) -> tuple[list, list]:
    """Moves some images of a batch to the device; returns them and their metas, view by view.

    Raises:
        InputError: If the pipeline returns no images.
    """
    images, metas = [], []
    check_keys(batch)
    for view, meta in zip(batch['img'], batch['img_metas']):
        view = view.data[0] if isinstance(view, DataContainer) else view
        images.append([view[i].to(device, non_blocking=True) for i in positions])
        metas.append([meta.data[0][i] for i in positions])
    return images, metas


@contextmanager
def _stoppable() -> Iterator[list[float]]:
    """Yields a list that a stop signal fills, to end a loop after its batch.

    A second signal ends the loop at once.
    """
    asked: list[float] = []

    def note(number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if asked and now - asked[0] > ONE_KEYSTROKE:
            raise KeyboardInterrupt
        if not asked:
            get_root_logger().warning('%s: stopping after the current batch; a second signal stops '
                                      'at once', signal.Signals(number).name)
            asked.append(now)

    with _handled_by(note):
        yield asked


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], object] | signal.Handlers
                ) -> Iterator[None]:
    """Replaces the handlers of the stop signals, in the main thread, which receives them."""
    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler)
              for number in (signal.SIGINT, *heard())} if here else {}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
