"""Paints predictions over their images, to be shown or written during a test run."""
import errno
import os.path as osp
from dataclasses import dataclass

import mmcv
import numpy as np
from mmcv.image import tensor2imgs
from mmseg.datasets import CustomDataset
from torch import Tensor, nn

from ..datasets.nesting import innermost_datasets
from ..errors import InputError
from ..files import as_save_error
from ..plugins import is_known
from ..visualization.predictions import palette_of, part_of, read_classes
from ..visualization.side_by_side import side_by_side


@dataclass(frozen=True)
class Painter:
    """Paints predictions over their images, beside the ground truth where there is some.

    Attributes:
        dataset: Data set that is tested.
        folder: Folder for the pictures, which are named like the images, of several data sets by
            their paths in the folder of all; None writes none.
        show: Whether to open a window for each picture.
        opacity: Opacity of the paint, in (0, 1].
    """
    dataset: CustomDataset
    folder: str | None = None
    show: bool = False
    opacity: float = 0.5

    def __call__(self, model: nn.Module, image: Tensor, meta: dict, labels: np.ndarray,
                 index: int) -> None:
        """Paints one prediction (H, W) over the image (3, h, w) that the network saw.

        Args:
            model: Segmentor; one of a plugin that has a picture of its own makes that.
            image: Image as the network saw it.
            meta: Its metadata.
            labels: Prediction.
            index: Index of the image in the data set.

        Raises:
            SaveError: If the picture cannot be written.
        """
        picture, = tensor2imgs(image[None], **meta['img_norm_cfg'])
        height, width = meta['img_shape'][:2]
        picture = mmcv.imresize(picture[:height, :width], meta['ori_shape'][1::-1])
        several = len(innermost_datasets(self.dataset)) > 1
        name = (osp.relpath(meta['filename'], self.dataset.img_dir) if several
                else meta['ori_filename'])
        out_file = self.folder and osp.join(self.folder, name)
        if is_known(type(model).show_result):
            page = self._page(picture[..., ::-1], labels, index)
            if self.show:
                mmcv.imshow(page)
            if out_file:
                mmcv.imwrite(page, out_file)
        else:
            model.show_result(picture, [labels], palette=self.dataset.PALETTE, show=self.show,
                              out_file=out_file, opacity=self.opacity)
        if out_file and not (osp.isfile(out_file) and osp.getsize(out_file)):
            # OpenCV reports no errors.
            raise as_save_error(OSError(errno.EIO, 'OpenCV could not write it'), out_file)

    def _page(self, image: np.ndarray, labels: np.ndarray, index: int) -> np.ndarray:
        """Returns the picture of an RGB image (H, W, 3), BGR as OpenCV has it."""
        shown = {'Prediction': labels}
        ground_truth = self._ground_truth(index)
        if ground_truth is not None and ground_truth.shape == labels.shape:
            shown = {'Ground truth': ground_truth, **shown}
        page = side_by_side(image, shown, self.dataset.CLASSES, palette_of(self.dataset),
                            self.opacity)
        return np.ascontiguousarray(page[..., ::-1])

    def _ground_truth(self, index: int) -> np.ndarray | None:
        """Returns the labels (H, W) of an image; None where there are none that can be read."""
        dataset, place, _ = part_of(self.dataset, index)
        if getattr(dataset, 'ann_dir', None) is None or not hasattr(dataset, 'img_infos'):
            return None
        try:
            return read_classes(dataset, place)
        except (InputError, OSError):  # The metrics, if asked for, refuse it.
            return None
