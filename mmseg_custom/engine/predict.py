"""Predicts a data set: the one loop of tests, evaluations during training, and sweeps.

    batch -> label maps of each segmentor -> results to keep -> gathered on rank 0

The loop does not wait for a GPU: label maps are copied to the host while the next batch is
computed, and a second thread turns them into results, files and pictures.

Letters: `N` images of a batch, `H W` pixels.
"""
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from mmcv.parallel import DataContainer
from mmcv.runner import get_dist_info
from mmseg.utils import get_root_logger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..distributed.parallelize import evaluation_mode, is_sharded, unwrap
from ..errors import InputError
from ..evaluation.run_info import peak_memory
from ..models import InternViTSegmentor
from ..progress import progress_bar
from .background import Background
from .copies import DeviceCopy, HostCopy, copy_stream
from .painter import Painter
from .predictions import Predictions
from .preemption import Preemption
from .samples import SkippingDataset
from .stop_signals import stop_after_batch

Keep = Callable[[list[np.ndarray], list[int]], Sequence]


def predict(model: nn.Module, loader: DataLoader, device: str, keep: Keep | None = None,
            paint: Painter | None = None) -> Predictions:
    """Predicts a data set in a test; if something ends it early, returns the results so far.

    This may be a sample that cannot be read, Ctrl-C, or a signal from the scheduler.

    Args:
        model: Segmentor from :func:`.test.build_test_model`.
        loader: Loader from :func:`.loaders.build_test_loader`.
        device: 'cuda' or 'cpu'.
        keep: Function that turns label maps (H, W) and the indices of their images into the
            results, such as a data set's ``pre_eval``; default: the label maps are the results.
        paint: What shows or writes pictures.

    Returns:
        Predictions of all ranks on rank 0; of this rank on the others, and if it was stopped.
    """
    model = model.cuda() if device == 'cuda' else model
    found = Predictions(len(loader.dataset))
    try:
        with stop_after_batch() as stop:
            if not _fill([found], [model], loader, device, keep, paint=paint,
                         stopped=lambda: bool(stop)):
                return found.gather()
            raise KeyboardInterrupt
    except (Exception, KeyboardInterrupt) as error:
        found.stopped_by = error
    return found


def predict_all(models: Sequence[nn.Module], loader: DataLoader, device: str,
                keep: Keep | None = None, description: str = '',
                preemption: Preemption | None = None,
                labels_of: Callable[[list, list], list] | None = None) -> list[Predictions]:
    """Predicts a data set with one or several segmentors during training, wrapped or not.

    Args:
        models: Segmentors on their device.
        loader: See :func:`predict`.
        device: See :func:`predict`.
        keep: See :func:`predict`.
        description: Text beside the progress bar.
        preemption: Stop signals of the run.
        labels_of: Function of images and metas that returns the label maps of each segmentor,
            where they share work; default: :func:`predict_labels`, one segmentor after the other.

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
        _fill(found, models, loader, device, keep, stopped=stopped, description=description,
              labels_of=labels_of)
    if preemption is not None:
        preemption.check()
    return [own.gather() for own in found]


def _fill(found: Sequence[Predictions], models: Sequence[nn.Module], loader: DataLoader,
          device: str, keep: Keep | None, paint: Painter | None = None,
          stopped: Callable[[], bool] = lambda: False, description: str = '',
          labels_of: Callable[[list, list], list] | None = None) -> bool:
    """Predicts this rank's part of a data set into ``found``, one entry per segmentor.

    Returns:
        Whether it was stopped, after a batch.
    """
    _, ranks = get_dist_info()
    start, total = time.perf_counter(), len(loader.dataset)
    copies, skips = copy_stream(device), isinstance(loader.dataset, SkippingDataset)
    for model in models:
        model.eval()
    # A window on the screen belongs to the main thread.
    background = Background('cpu' if paint and paint.show else device)
    try:
        with progress_bar(total, 'image', description, leave=not description) as bar, \
                torch.no_grad(), background:
            for indices, batch in zip(_indices(loader), loader):
                unread = batch.pop('unread', {})
                skipped = [(indices[i], message) for i, message in unread.items()]
                read = [index for i, index in enumerate(indices) if i not in unread]
                images = _predict(models, read, batch, copies, labels_of)
                background.put(partial(_finish, found, skipped, images, keep, paint, skips))
                # The other ranks are taken to be as far as this one.
                bar.update(min(len(indices) * ranks, total - bar.n))
                if stopped():
                    return True
        return False
    finally:
        for own in found:
            own.seconds, own.memory = time.perf_counter() - start, peak_memory(device)


@dataclass
class _Image:
    """An image whose labels are there, or on their way to the host.

    Attributes:
        index: Index in the data set.
        labels: Label map (H, W) of each segmentor.
        view: First view (3, H, W) that the network saw, on the host.
        meta: Metas of that view.
        model: First segmentor.
    """
    index: int
    labels: list[HostCopy | np.ndarray]
    view: Tensor
    meta: dict
    model: nn.Module


@torch.no_grad()  # The mode belongs to a thread, and this may run in another one.
def _finish(found: Sequence[Predictions], skipped: list[tuple[int | None, str]],
            images: list[_Image], keep: Keep | None, paint: Painter | None, skips: bool) -> None:
    """Stores the results of a batch for each segmentor, and paints the pictures.

    Args:
        found: Predictions of each segmentor.
        skipped: Indices of images that could not be read, and why.
        images: The others.
        keep: See :func:`predict`.
        paint: See :func:`predict`.
        skips: Whether an image is skipped whose label cannot be read.

    Raises:
        InputError: If a label cannot be read, and its image is not skipped.
    """
    for index, message in skipped:
        for own in found:
            _skip(own, index, message)
    for image in images:
        for own, labels in zip(found, image.labels):
            if isinstance(labels, HostCopy):
                labels = labels.wait().numpy().astype(np.int64)
            try:
                own.results[image.index] = (
                    keep([labels], [image.index])[0] if keep else labels)
            except InputError as error:
                if not skips:
                    raise
                _skip(own, image.index, str(error))
                continue
            if paint:
                paint(image.model, image.view, image.meta, labels, image.index)


def _predict(models: Sequence[nn.Module], indices: list[int | None], batch: dict,
             copies: torch.cuda.Stream | None, labels_of: Callable[[list, list], list] | None
             ) -> list[_Image]:
    """Predicts the images of a batch, which are copied to the device on a stream of their own."""
    # Ranks with a sharded model must predict equally often, so they predict the padding, too.
    padding = any(is_sharded(model) for model in models)
    positions = [i for i, index in enumerate(indices) if index is not None or padding]
    if not positions:
        return []
    views, metas = _unpack(batch, positions)
    images = DeviceCopy(views, copies).arrive()
    labels = labels_of(images, metas) if labels_of is not None else [
        predict_labels(model, images, metas) for model in models]
    return [_Image(index, list(of_image), view, meta, unwrap(models[0]))
            for index, *of_image, view, meta in zip(
                (indices[i] for i in positions), *labels, views[0], metas[0])
            if index is not None]


def predict_labels(model: nn.Module, images: list, metas: list[list[dict]]
                   ) -> list[HostCopy | np.ndarray]:
    """Predicts the label maps (H, W) of N images of any sizes, by any of mmseg's segmentors.

    Args:
        model: Segmentor on its device, in eval mode, wrapped or not.
        images: Views of N images each, (3, H, W), on that device.
        metas: Views of N dicts each.

    Returns:
        N label maps: of our segmentor on their way to the host, of others there.
    """
    segmentor = unwrap(model)
    if isinstance(segmentor, InternViTSegmentor):
        found = segmentor(return_loss=False, img=images, img_metas=metas,
                          lockstep=is_sharded(model), on_device=True)
        # A subclass may have a forward pass of its own.
        return [HostCopy(x) if isinstance(x, Tensor) else x for x in found]
    return [segmentor(return_loss=False, img=[view[n][None] for view in images],
                      img_metas=[[view[n]] for view in metas])[0] for n in range(len(images[0]))]


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


def _unpack(batch: dict, positions: list[int]) -> tuple[list, list]:
    """Returns some images of a batch and their metas, view by view.

    Raises:
        InputError: If the pipeline returns no images.
    """
    images, metas = [], []
    check_keys(batch)
    for view, meta in zip(batch['img'], batch['img_metas']):
        view = view.data[0] if isinstance(view, DataContainer) else view
        images.append([view[i] for i in positions])
        metas.append([meta.data[0][i] for i in positions])
    return images, metas
