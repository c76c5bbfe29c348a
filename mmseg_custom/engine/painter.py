"""Paints predictions over their images, to be shown or written during a test run."""
import errno
import os.path as osp
from collections.abc import Sequence
from dataclasses import dataclass

import mmcv
import numpy as np
from mmcv.image import tensor2imgs
from torch import Tensor, nn

from ..files import as_save_error


@dataclass(frozen=True)
class Painter:
    """Paints predictions over their images.

    Attributes:
        palette: RGB colours of the classes.
        folder: Folder for the pictures, which are named like the images; None writes none.
        show: Whether to open a window for each picture.
        opacity: Opacity of the paint, in (0, 1].
        image_folder: Folder of all images, where they are of several data sets: the pictures are
            named by the paths in it.
    """
    palette: Sequence
    folder: str | None = None
    show: bool = False
    opacity: float = 0.5
    image_folder: str | None = None

    def __call__(self, model: nn.Module, image: Tensor, meta: dict, labels: np.ndarray) -> None:
        """Paints one prediction (H, W) over the image (3, h, w) that the network saw."""
        picture, = tensor2imgs(image[None], **meta['img_norm_cfg'])
        height, width = meta['img_shape'][:2]
        picture = mmcv.imresize(picture[:height, :width], meta['ori_shape'][1::-1])
        name = (osp.relpath(meta['filename'], self.image_folder) if self.image_folder
                else meta['ori_filename'])
        out_file = self.folder and osp.join(self.folder, name)
        model.show_result(picture, [labels], palette=self.palette, show=self.show,
                          out_file=out_file, opacity=self.opacity)
        if out_file and not (osp.isfile(out_file) and osp.getsize(out_file)):
            # OpenCV reports no errors.
            raise as_save_error(OSError(errno.EIO, 'OpenCV could not write it'), out_file)
