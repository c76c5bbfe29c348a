"""Inference in windows: images of any sizes -> windows -> batches -> logits -> label maps.

N images, A views of an image in multi-scale testing, B windows, K classes, H W pixels, h w cells of
the head's logits.
"""
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...errors import InputError
from .batching import WindowBatch
from .image_views import ImageView, WindowedView
from .windows import Axis, boxes, labels_of, window_starts


class WindowInference:
    """Mixin for a segmentor that labels large images fast and in little memory.

    The labels are those of mmseg's ``slide_inference`` and ``whole_inference``, with flips and the
    mean of probabilities over the views (``aug_test``), up to rounding. Windows of all views of all
    images of a batch go through the network together, and the logits of every pixel are never
    computed at once: see :mod:`.windows`. It stands in front of ``torch.nn.Module``, or of
    mmseg's ``EncoderDecoder``, among the bases of a class.

    A class that runs the network in another way, such as an exported graph, overrides
    :meth:`window_logits`, and needs no ``backbone`` then.

    Attributes:
        backbone: Network of windows (B, 3, H, W) that returns feature maps.
        decode_head: Network of feature maps that returns logits (B, K, h, w). Its ``threshold``,
            for one output channel, and ``gives_probabilities`` say how labels follow from these.
        test_cfg: ``mode``: ``'slide'``, with ``crop_size`` and ``stride``, (height, width) in
            pixels, or ``'whole'``; and ``window_batch``, the window batch size: by default it
            follows from the free memory.
        align_corners: Option of resizing logits.
        out_channels: K, or 1 for the logit of the second of two classes.
    """
    backbone: nn.Module
    decode_head: nn.Module
    test_cfg: Any
    align_corners: bool
    out_channels: int

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._batch = WindowBatch()

    def label_maps(self, images: Sequence[Sequence[ImageView]],
                   lockstep: bool = False) -> list[Any]:
        """Computes the label maps of a batch of images.

        Args:
            images: A views of each of N images.
            lockstep: Whether all processes of the group test at the same time with weights in
                shards. Each then runs the network equally often, on windows of zeros where it has
                none left; they must call this segmentor equally often.

        Returns:
            N label maps (H, W) on the device of their images: uint8, or int16 for many classes.

        Raises:
            InputError: For a ``test_cfg`` that cannot work.
        """
        check_test_cfg(self.test_cfg)
        self._batch.ask(self.test_cfg.get('window_batch'))
        planned = [[self._plan(view) for view in views] for views in images]
        self._run([view for views in zip(*planned) for view in views], lockstep)
        return [self._label(views) for views in planned]

    def window_logits(self, windows: Any, metas: list, lockstep: bool = False) -> Any:
        """Computes the head's logits (B, K, h, w) of windows (B, 3, H, W), in float32.

        On the CPU the head takes one window at a time: how some of its products are added up
        depends on the size of the batch. The backbone's do not.

        Args:
            windows: Windows, or feature maps that the backbone takes in the place of windows.
            metas: B values of ``ImageView.meta``.
            lockstep: Whether other processes run the same modules at the same time.
        """
        features = self.window_features(windows)
        if features[0].device.type != 'cpu' or lockstep:
            return self.head_logits(features, metas).float()
        return torch.cat([self.head_logits([x[i:i + 1] for x in features], metas[i:i + 1]).float()
                          for i in range(len(metas))])

    def window_features(self, windows: Any) -> list[Tensor]:
        """Computes the feature maps (B, C, h, w) of windows (B, 3, H, W)."""
        return self.backbone(windows)

    def head_logits(self, features: list[Tensor], metas: list) -> Tensor:
        """Computes the logits (B, K, h, w) of feature maps: see :meth:`window_logits`."""
        return self.decode_head(features)

    def _plan(self, view: ImageView) -> WindowedView:
        """Plans the windows of one view."""
        flip = view.flip_direction
        if flip not in (None, 'horizontal', 'vertical'):
            raise ValueError(f'flip_direction={flip!r}: expected horizontal or vertical')
        size = view.image.shape[-2:]
        axes = []
        for i, flipped_by in enumerate(('vertical', 'horizontal')):
            length = crop = stride = size[i]
            if self.test_cfg['mode'] == 'slide':
                crop, stride = self.test_cfg['crop_size'][i], self.test_cfg['stride'][i]
            axes.append(Axis(
                length, min((view.kept_size or size)[i], length), view.label_size[i],
                side=min(crop, length), starts=window_starts(length, crop, stride),
                flipped=flip == flipped_by))
        return WindowedView(view.image, view.meta, rows=axes[0], columns=axes[1])

    def _run(self, views: list[WindowedView], lockstep: bool) -> None:
        """Runs the network on the windows of all views, those of one shape together."""
        waiting: dict[tuple[int, int], list] = {}
        for view in views:
            for i, j, y, x in boxes(view.rows, view.columns):
                waiting.setdefault(view.window_shape, []).append((view, i, j, y, x))
        if lockstep:
            self._run_in_lockstep(waiting, views[0])
        while waiting:
            self._run_next(waiting, lockstep)

    def _run_in_lockstep(self, waiting: dict[tuple[int, int], list], view: WindowedView) -> None:
        """Runs the network as often as the process with the most batches of windows.

        Args:
            waiting: Shape -> windows of this process.
            view: One of its views, whose shape of windows those of zeros have.
        """
        device, may_be_more = view.image.device, 1
        while may_be_more:
            batches, may_be_more = most_of_ranks(self._batch.batches(
                {shape: len(windows) for shape, windows in waiting.items()}), device)
            for _ in range(batches):
                if waiting:
                    self._run_next(waiting, lockstep=True)
                else:  # here, but another process has windows left
                    self.window_logits(torch.zeros(1, 3, *view.window_shape, device=device),
                                       [view.meta], lockstep=True)

    def _run_next(self, waiting: dict[tuple[int, int], list], lockstep: bool) -> None:
        """Runs the next batch of windows, and removes them."""
        shape, windows = next(iter(waiting.items()))
        del windows[:self._run_batch(shape, windows, lockstep)]
        if not windows:
            del waiting[shape]

    def _run_batch(self, shape: tuple[int, int], windows: list, lockstep: bool) -> int:
        """Runs the first windows of a list; returns how many."""
        batch = windows[:self._batch.size(shape)]
        try:
            with self._batch.measured(shape, batch[0][0].image.device):
                logits = self.window_logits(
                    torch.stack([view.image[:, y, x] for view, _, _, y, x in batch]),
                    [view.meta for view, *_ in batch], lockstep)
        except torch.cuda.OutOfMemoryError:
            if len(batch) == 1 or lockstep:
                raise
            self._batch.halve(shape)
            return 0
        for (view, i, j, _, _), own in zip(batch, logits):
            view.put(i, j, own)
        return len(batch)

    def _label(self, views: Sequence[Any]) -> Any:
        """Computes the label map of an image from its views, on their device."""
        with exact_products():
            return labels_of([view.view(self.align_corners) for view in views],
                             self.decode_head.threshold if self.out_channels == 1 else None,
                             getattr(self.decode_head, 'gives_probabilities', False))


def most_of_ranks(numbers: Sequence[int], device: torch.device) -> list[int]:
    """Returns the largest of each number on any rank, without a GPU where the hosts exchange it."""
    on_host = 'cpu:' in dist.get_backend_config()
    largest = torch.tensor(numbers, device='cpu' if on_host else device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.tolist()


def check_test_cfg(test_cfg: Mapping[str, Any] | None) -> None:
    """Refuses windows that cannot be placed.

    Raises:
        InputError: Naming the key.
    """
    test_cfg = test_cfg or {}
    mode = test_cfg.get('mode')
    if mode not in ('slide', 'whole'):
        raise InputError(f"test_cfg.mode={mode!r}: expected 'slide' or 'whole'")
    if mode == 'whole':
        return
    for key in ('crop_size', 'stride'):
        value = test_cfg.get(key)
        if not isinstance(value, Sequence) or len(value) != 2 or min(value) < 1:
            raise InputError(f'test_cfg.{key}={value!r}: expected (height, width) in pixels')
    if any(s > c for s, c in zip(test_cfg['stride'], test_cfg['crop_size'])):
        raise InputError(f'test_cfg.stride={tuple(test_cfg["stride"])} is more than the crop_size '
                         f'{tuple(test_cfg["crop_size"])}: pixels between windows would have no '
                         'label')


@contextmanager
def exact_products() -> Iterator[None]:
    """Computes float32 products in float32, even where a run allows TF32 for its network."""
    settings = torch.backends.cuda.matmul
    # allow_tf32 is what PyTorch before 2.9 has.
    name, exact = (('fp32_precision', 'ieee') if hasattr(settings, 'fp32_precision')
                   else ('allow_tf32', False))
    before = getattr(settings, name)
    setattr(settings, name, exact)
    try:
        yield
    finally:
        setattr(settings, name, before)
