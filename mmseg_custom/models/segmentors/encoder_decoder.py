"""mmseg's encoder-decoder with a test path of its own: images -> windows -> batches -> labels.

Training, configs, weights and labels are those of mmseg; time and memory differ. A views of an
image in multi-scale testing, N images, K classes, H W pixels, h w cells of the head's logits.
"""
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from mmseg.models.builder import SEGMENTORS
from mmseg.models.segmentors import EncoderDecoder
from torch import Tensor

from ...errors import InputError
from ...layers.quantized_linear import quantized_layers
from ..decode_heads.backbone_blocks import BackboneBlocks
from .batching import WindowBatch
from .windows import Axis, View, boxes, labels_of, window_starts


@dataclass
class _Job:
    """One view of one image: its windows, and the logits computed so far."""
    image: Tensor  # (3, H, W)
    meta: dict
    rows: Axis
    columns: Axis
    logits: Tensor | None = None  # (K, windows * h, windows * w)
    matrices: dict[tuple, Tensor] = field(default_factory=dict)  # may be shared with other heads

    def put(self, i: int, j: int, cells: Tensor) -> None:
        """Stores the logits (K, h, w) of the window in row i and column j."""
        classes, height, width = cells.shape
        if self.logits is None:
            self.logits = cells.new_empty(classes, len(self.rows.starts) * height,
                                          len(self.columns.starts) * width)
        self.logits[:, i * height:(i + 1) * height, j * width:(j + 1) * width] = cells

    def view(self, align_corners: bool) -> View:
        """Returns the logits with their weights for each pixel of the output."""
        assert self.logits is not None  # every window has been put
        cells = [size // len(axis.starts) for size, axis in
                 zip(self.logits.shape[1:], (self.rows, self.columns))]
        rows, columns = (self._matrix(axis, n, align_corners)
                         for axis, n in zip((self.rows, self.columns), cells))
        return View(self.logits, rows, columns, self.rows.pitch(cells[0]))

    def _matrix(self, axis: Axis, cells: int, align_corners: bool) -> Tensor:
        key = (axis, cells, align_corners)
        if key not in self.matrices:
            self.matrices[key] = axis.matrix(cells, align_corners)
        return self.matrices[key]


@SEGMENTORS.register_module()
class InternViTSegmentor(EncoderDecoder):
    """mmseg's ``EncoderDecoder`` that tests large images fast and in little memory.

    The labels are those of mmseg's ``slide_inference`` and ``whole_inference``, with flips and the
    mean of probabilities over the views (``aug_test``), up to rounding. Windows of all views of all
    images of a batch go through the network together, and the logits of every pixel are never
    computed at once: see :mod:`.windows`.

    ``test_cfg`` has one more key: ``window_batch``, the window batch size; by default it follows
    from the free memory.
    """

    tests_in_lockstep = True  # read where sharded models are tested

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._batch = WindowBatch()
        self.join_backbone()

    def join_backbone(self) -> None:
        """Gives the backbone's last blocks to a decode head whose queries pass them.

        Raises:
            InputError: If they do not go together.
        """
        blocks = getattr(self.decode_head, 'blocks', None)
        if not isinstance(blocks, BackboneBlocks):
            return
        for name in ('neck', 'auxiliary_head'):
            if hasattr(self, name):
                raise InputError(f"model.{name} with model.decode_head.blocks='backbone': the "
                                 'backbone returns tokens for its last blocks in the place of '
                                 f'feature maps: leave model.{name} out')
        blocks.join(self.backbone)

    def init_weights(self) -> None:
        """Initialises the heads; mmcv would take the mean of each weight, also of 8-bit ones."""
        if not quantized_layers(self.backbone):
            super().init_weights()
            return
        for child in self.children():
            if hasattr(child, 'init_weights'):
                child.init_weights()

    def forward(self, img: Tensor | list | None = None, img_metas: list | None = None,
                return_loss: bool = True, feats: list[Tensor] | None = None, **kwargs):
        """Computes losses or, with ``return_loss=False``, label maps: see :meth:`forward_test`.

        Args:
            img: Images (B, 3, H, W) in training; the views of images in testing.
            img_metas: Metas of the images, dicts as mmseg's ``Collect`` makes them.
            return_loss: Whether this is training.
            feats: Feature maps of the images in the place of ``img``, from a feature cache.
            **kwargs: ``gt_semantic_seg`` (B, 1, H, W) in training; options of testing.
        """
        inputs = img if feats is None else feats  # the backbone takes either
        return super().forward(inputs, img_metas, return_loss, **kwargs)

    def forward_test(self, imgs: Sequence, img_metas: Sequence, rescale: bool = True,
                     lockstep: bool = False, on_device: bool = False,
                     **_kwargs) -> list[np.ndarray] | list[Tensor]:
        """Computes the label maps of a batch of images.

        Args:
            imgs: A views, each (N, 3, H, W), or a list of N images (3, H, W) of any sizes.
            img_metas: A lists of N dicts, as mmseg's ``Collect`` makes them.
            rescale: Whether labels have the size of the original images; else they have that of
                the network's input, for a single view.
            lockstep: Whether all processes of the group test at the same time with weights in
                shards. Each then runs the network equally often, on windows of zeros where it has
                none left; they must call this segmentor equally often.
            on_device: Whether the label maps stay on the device, so that nothing waits for them.

        Returns:
            N label maps (H, W): int64 arrays; on the device, tensors of uint8 or int16.

        Raises:
            InputError: For a ``test_cfg`` that cannot work.
        """
        for value, name in ((imgs, 'imgs'), (img_metas, 'img_metas')):
            if not isinstance(value, list):
                raise TypeError(f'{name}: expected a list of views, got {type(value)}')
        if len(imgs) != len(img_metas):
            raise ValueError(f'{len(imgs)} views of images, but {len(img_metas)} of their metas')
        if len(imgs) > 1 and not rescale:
            raise ValueError('views of different sizes have their common size in rescale=True')
        check_test_cfg(self.test_cfg)
        self._batch.ask(self.test_cfg.get('window_batch'))
        views = [[self._job(image, meta, rescale) for image, meta in zip(images, metas)]
                 for images, metas in zip(imgs, img_metas)]
        self._run([job for jobs in views for job in jobs], lockstep)
        labels = [self._labels(jobs) for jobs in zip(*views)]
        return labels if on_device else [x.cpu().numpy().astype(np.int64) for x in labels]

    def simple_test(self, img: Tensor, img_meta: list[dict],
                    rescale: bool = True) -> list[np.ndarray] | list[Tensor]:
        """Computes the label maps of one view: see :meth:`forward_test`."""
        return self.forward_test([img], [img_meta], rescale)

    def aug_test(self, imgs: list, img_metas: list[list[dict]],
                 rescale: bool = True) -> list[np.ndarray] | list[Tensor]:
        """Computes the label maps of several views: see :meth:`forward_test`."""
        return self.forward_test(imgs, img_metas, rescale)

    def _job(self, image: Tensor, meta: dict, rescale: bool) -> _Job:
        """Plans the windows of one view of one image, (3, H, W) or (1, 3, H, W)."""
        image = image.reshape(image.shape[-3:])
        direction = meta['flip_direction'] if meta.get('flip') else None
        if direction not in (None, 'horizontal', 'vertical'):
            raise ValueError(f'flip_direction={direction!r}: expected horizontal or vertical')
        axes = []
        for i, flipped_by in enumerate(('vertical', 'horizontal')):
            length = image.shape[1 + i]
            crop = stride = length
            if self.test_cfg.mode == 'slide':
                crop, stride = self.test_cfg.crop_size[i], self.test_cfg.stride[i]
            kept = min(meta['img_shape'][i], length) if rescale else length
            axes.append(Axis(
                length, kept, meta['ori_shape'][i] if rescale else length,
                side=min(crop, length), starts=window_starts(length, crop, stride),
                flipped=direction == flipped_by))
        return _Job(image, meta, rows=axes[0], columns=axes[1])

    def _run(self, jobs: list[_Job], lockstep: bool) -> None:
        """Runs the network on the windows of all jobs, those of one shape together."""
        waiting: dict[tuple[int, int], list] = {}
        for job in jobs:
            for i, j, y, x in boxes(job.rows, job.columns):
                waiting.setdefault((job.rows.side, job.columns.side), []).append((job, i, j, y, x))
        if lockstep:
            self._run_in_lockstep(waiting, jobs[0])
        while waiting:
            self._run_next(waiting, lockstep)

    def _run_in_lockstep(self, waiting: dict[tuple[int, int], list], job: _Job) -> None:
        """Runs the network as often as the process with the most batches of windows.

        Args:
            waiting: Shape -> windows of this process.
            job: One of its jobs, whose shape of windows those of zeros have.
        """
        device, shape = job.image.device, (job.rows.side, job.columns.side)
        may_be_more = 1
        while may_be_more:
            batches, may_be_more = _most_of_ranks(self._batch.batches(
                {shape: len(windows) for shape, windows in waiting.items()}), device)
            for _ in range(batches):
                if waiting:
                    self._run_next(waiting, lockstep=True)
                else:  # here, but another process has windows left
                    self._cells(torch.zeros(1, 3, *shape, device=device), [job.meta], True)

    def _run_next(self, waiting: dict[tuple[int, int], list], lockstep: bool) -> None:
        """Runs the next batch of windows, and removes them."""
        shape, windows = next(iter(waiting.items()))
        del windows[:self._run_batch(shape, windows, lockstep)]
        if not windows:
            del waiting[shape]

    def _run_batch(self, shape: tuple[int, int], windows: list, lockstep: bool) -> int:
        """Runs the first windows of a list; returns how many."""
        batch = windows[:self._batch.size(shape)]
        device = batch[0][0].image.device
        try:
            with self._batch.measured(shape, device):
                cells = self._cells(torch.stack([job.image[:, y, x] for job, _, _, y, x in batch]),
                                    [job.meta for job, *_ in batch], lockstep)
        except torch.cuda.OutOfMemoryError:
            if len(batch) == 1 or lockstep:
                raise
            self._batch.halve(shape)
            return 0
        for (job, i, j, _, _), own in zip(batch, cells):
            job.put(i, j, own)
        return len(batch)

    def _cells(self, windows: Tensor | list[Tensor], metas: list[dict], lockstep: bool) -> Tensor:
        """Computes the head's logits (B, K, h, w) of windows (B, 3, H, W), in float32.

        Feature maps that the backbone takes in the place of windows will do, too.

        On the CPU the head takes one window at a time: how some of its products are added up
        depends on the size of the batch. The backbone's do not.
        """
        features = self.extract_feat(windows)
        if features[0].device.type != 'cpu' or lockstep:
            return self._decode_head_forward_test(features, metas).float()
        return torch.cat([
            self._decode_head_forward_test([x[i:i + 1] for x in features], metas[i:i + 1]).float()
            for i in range(len(metas))])

    def _labels(self, jobs: Sequence[_Job]) -> Tensor:
        """Computes the label map of an image from its views, on their device."""
        with _exact_products():
            return labels_of([job.view(self.align_corners) for job in jobs],
                             self.decode_head.threshold if self.out_channels == 1 else None,
                             getattr(self.decode_head, 'gives_probabilities', False))


def _most_of_ranks(numbers: Sequence[int], device: torch.device) -> list[int]:
    """Returns the largest of each number on any rank, without a GPU where the hosts exchange it."""
    on_host = 'cpu:' in dist.get_backend_config()
    largest = torch.tensor(numbers, device='cpu' if on_host else device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.tolist()


def check_test_cfg(test_cfg: dict | None) -> None:
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
def _exact_products() -> Iterator[None]:
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
