"""The loop of a test run: image after image through a segmentor, on all ranks.

Whatever ends it early (a sample that cannot be read, Ctrl-C, a signal of the scheduler), the
results so far come out. N images of a batch, H W pixels.
"""
import os.path as osp
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import mmcv
import numpy as np
import torch
import torch.distributed as dist
from mmcv.image import tensor2imgs
from mmcv.parallel import DataContainer
from mmcv.runner import get_dist_info
from mmseg.utils import get_root_logger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..errors import InputError
from ..files import atomic_path
from ..models import InternViTSegmentor
from .samples import Skipping

Keep = Callable[[list[np.ndarray], list[int]], Sequence]
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
ONE_KEYSTROKE = 2.  # seconds: a terminal signals every process, and a launcher its own once more


@dataclass
class Predictions:
    """What a test run has so far.

    Attributes:
        total: Images in the data set.
        results: Index of an image -> what was kept of its prediction.
        skipped: Index of an image -> why it could not be read.
        seconds: Wall-clock time of the loop, on the slowest rank.
        stopped_by: What ended it early; KeyboardInterrupt for a signal.
    """
    total: int
    results: dict[int, object] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.
    stopped_by: BaseException | None = None

    def in_order(self) -> list:
        """The results in the order of the data set; skipped images have none."""
        return [self.results[index] for index in sorted(self.results)]


def predict(model: nn.Module, loader: DataLoader, device: str, keep: Keep | None = None,
            paint: 'Painter | None' = None) -> Predictions:
    """Runs a segmentor over a data set, each rank over its share.

    Args:
        model: From :func:`.test.load_model`.
        loader: From :func:`.test.build_test_loader`.
        device: 'cuda' or 'cpu'.
        keep: Makes of label maps (H, W) and the indices of their images what is kept of them, such
            as a data set's ``pre_eval``; default: the label maps.
        paint: Shows or writes pictures.

    Returns:
        What was predicted: of all ranks on rank 0, of itself on another rank, and on any rank that
        was stopped.
    """
    model = (model.cuda() if device == 'cuda' else model).eval()
    skips = isinstance(loader.dataset, Skipping)
    found = Predictions(len(loader.dataset))
    progress = _Progress(found.total)
    start = time.perf_counter()
    try:
        with _stoppable() as stop, torch.no_grad():
            for indices, batch in zip(_indices(loader), loader):
                bad = batch.pop('bad', {})
                for position, message in bad.items():
                    _skip(found, indices[position], message)
                read = [index for i, index in enumerate(indices) if i not in bad]
                _take(found, model, read, batch, device, keep, skips, paint)
                progress.advance(len(indices))
                if stop:
                    raise KeyboardInterrupt
            found.seconds = time.perf_counter() - start
            return _gather(found)
    except (Exception, KeyboardInterrupt) as error:
        found.stopped_by = error
    found.seconds = time.perf_counter() - start
    return found


def _take(found: Predictions, model: nn.Module, indices: list[int | None], batch: dict,
          device: str, keep: Keep | None, skips: bool, paint: 'Painter | None') -> None:
    """Predicts the images of a batch one rank has to predict, and keeps what is to be kept."""
    wanted = [i for i, index in enumerate(indices) if index is not None]
    if not wanted:
        return
    images, metas = _unpack(batch, wanted, device)
    labels = labels_of(model, images, metas)
    for n, i in enumerate(wanted):
        index = indices[i]
        try:
            found.results[index] = keep([labels[n]], [index])[0] if keep else labels[n]
        except InputError as error:  # of its label
            if not skips:
                raise
            _skip(found, index, str(error))
            continue
        if paint:
            paint(model, images[0][n], metas[0][n], labels[n])


def labels_of(model: nn.Module, images: list, metas: list[list[dict]]) -> list[np.ndarray]:
    """The label maps (H, W) of N images of any sizes, by any of mmseg's segmentors.

    Args:
        model: On its device, in eval mode.
        images: Views of N images each, (3, H, W).
        metas: Views of N dicts each.
    """
    if isinstance(model, InternViTSegmentor):
        return model(return_loss=False, img=images, img_metas=metas)
    return [model(return_loss=False, img=[view[n][None] for view in images],
                  img_metas=[[view[n]] for view in metas])[0] for n in range(len(images[0]))]


def save_partial(found: Predictions, path: str, dataset: Dataset) -> str:
    """Writes the results of a run that was stopped: a pickle of plain Python and numpy.

    ``dict(indices, filenames, results, skipped, total)``, all of this rank.

    Returns:
        One line that says what there is.
    """
    indices = sorted(found.results)
    with handled_by(signal.SIG_IGN), atomic_path(path) as part, open(part, 'wb') as file:
        pickle.dump(dict(indices=indices, filenames=[name_of(dataset, i) for i in indices],
                         results=found.in_order(), skipped=found.skipped, total=found.total), file)
    rank, world_size = get_dist_info()
    where = f' (this is rank {rank} of {world_size})' if world_size > 1 else ''
    return f'{len(indices)} of {found.total} images are done{where}, their results are in {path}'


def name_of(dataset: Dataset, index: int) -> str:
    """The file name of an image; its number in data sets that have no names."""
    infos = getattr(dataset, 'img_infos', None)
    return infos[index]['filename'] if infos else str(index)


def _gather(found: Predictions) -> Predictions:
    """Puts the predictions of all ranks together on rank 0; each image is there once."""
    rank, world_size = get_dist_info()
    if world_size == 1:
        return found
    parts = [None] * world_size if rank == 0 else None
    gloo = dist.new_group(backend='gloo')  # results lie in the memory of the host
    dist.gather_object(found, parts, dst=0, group=gloo)
    dist.destroy_process_group(gloo)
    if parts is None:
        return found
    whole = Predictions(found.total, seconds=max(part.seconds for part in parts))
    for part in parts:
        whole.results.update(part.results)
        whole.skipped.update(part.skipped)
    return whole


def _skip(found: Predictions, index: int | None, message: str) -> None:
    if index is not None:
        found.skipped[index] = message
        get_root_logger().warning('skipped: %s', message)


def _indices(loader: DataLoader) -> Iterator[list[int | None]]:
    """The indices of each batch; None for what mmseg's sampler adds to give ranks equal shares."""
    rank, world_size = get_dist_info()
    place = rank if world_size > 1 else 0
    for batch in loader.batch_sampler:
        indices = []
        for index in batch:
            indices.append(index if place < len(loader.dataset) else None)
            place += world_size
        yield indices


def _unpack(batch: dict, wanted: list[int], device: str) -> tuple[list, list]:
    """The wanted images of a batch on the device, and their metas, view by view."""
    images, metas = [], []
    for view, meta in zip(batch['img'], batch['img_metas']):
        view = view.data[0] if isinstance(view, DataContainer) else view
        images.append([view[i].to(device, non_blocking=True) for i in wanted])
        metas.append([meta.data[0][i] for i in wanted])
    return images, metas


@dataclass(frozen=True)
class Painter:
    """Shows predictions over their images, or writes them.

    Attributes:
        palette: Colours of the classes.
        folder: For pictures named like the images; None writes none.
        show: Open a window for each.
        opacity: Of the paint, in (0, 1].
    """
    palette: Sequence
    folder: str | None = None
    show: bool = False
    opacity: float = 0.5

    def __call__(self, model: nn.Module, image: Tensor, meta: dict, labels: np.ndarray) -> None:
        """Paints one prediction (H, W) over the image (3, h, w) that the network saw."""
        picture, = tensor2imgs(image[None], **meta['img_norm_cfg'])
        height, width = meta['img_shape'][:2]
        picture = mmcv.imresize(picture[:height, :width], meta['ori_shape'][1::-1])
        out_file = self.folder and osp.join(self.folder, meta['ori_filename'])
        model.show_result(picture, [labels], palette=self.palette, show=self.show,
                          out_file=out_file, opacity=self.opacity)


class _Progress:
    """A bar on rank 0 that takes the other ranks to be as far as this one."""

    def __init__(self, total: int):
        rank, self.ranks = get_dist_info()
        self.bar = mmcv.ProgressBar(total) if rank == 0 else None

    def advance(self, images: int) -> None:
        if self.bar:
            left = self.bar.task_num - self.bar.completed
            self.bar.update(min(images * self.ranks, left))


@contextmanager
def _stoppable() -> Iterator[list]:
    """Lets a signal end a loop after its batch: it fills the list. A second one ends it at once."""
    asked = []

    def note(number: int, _frame: object) -> None:
        now = time.monotonic()
        if asked and now - asked[0] > ONE_KEYSTROKE:
            raise KeyboardInterrupt
        if not asked:
            get_root_logger().warning('%s: stopping after the images at work; once more stops at '
                                      'once', signal.Signals(number).name)
            asked.append(now)

    with handled_by(note):
        yield asked


@contextmanager
def handled_by(handler: object) -> Iterator[None]:
    """Has the signals that stop a run handled otherwise; in the main thread, which gets them."""
    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS} if here else {}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
