"""Several data sets that are tested together: metrics of each, and of all their images."""
import os.path as osp
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.utils import is_list_of, print_log
from mmseg.datasets.dataset_wrappers import ConcatDataset
from mmseg.utils import get_root_logger
from torch.utils.data import Dataset

from .class_names import compare_classes
from .nesting import sample_names


class ConcatTestDataset(ConcatDataset):
    """mmseg's ConcatDataset for ``data.val`` and ``data.test``.

    mmseg's own evaluates either each data set or all together. This one does both: 'mIoU' is of all
    images, '0_mIoU' of those of the first data set, the name that mmseg gives it. With skipped
    images, and with Cityscapes among the data sets, it works too.

    Args:
        datasets: Data sets with the same number of classes; the names and colours are those of the
            first.

    Attributes:
        img_dir: Folder that holds the folders of all images.
        names: Path of each image relative to ``img_dir``.

    Raises:
        InputError: If the numbers of classes or their order differ.
    """

    def __init__(self, datasets: Sequence[Dataset]):
        super(ConcatDataset, self).__init__(datasets)  # mmseg's refuses Cityscapes
        self.CLASSES, self.PALETTE = datasets[0].CLASSES, datasets[0].PALETTE
        self.separate_eval = True
        for number in range(1, len(datasets)):
            line = compare_classes((self.folder(0), datasets[0].CLASSES),
                                   (self.folder(number), datasets[number].CLASSES))
            if line is not None:
                get_root_logger().warning('%s: metrics of both together take them for one and the '
                                          'same', line)
        folders = [osp.abspath(self.folder(number)) for number in range(len(datasets))]
        self.img_dir = osp.commonpath(folders)
        self.names = [osp.relpath(osp.join(folder, name), self.img_dir)
                      for folder, dataset in zip(folders, datasets)
                      for name in sample_names(dataset)]

    def folder(self, number: int) -> str:
        """Returns the folder of the images of a data set."""
        return getattr(self.datasets[number], 'img_dir', None) or ''

    def split(self, results: Sequence, indices: Sequence[int] | None = None) -> list[list]:
        """Splits results by data set.

        Args:
            results: Results of images.
            indices: Indices of these images, ascending; default: all.
        """
        parts: list[list] = [[] for _ in self.datasets]
        for index, result in zip(range(len(self)) if indices is None else indices, results,
                                 strict=True):
            parts[self.get_dataset_idx_and_sample_idx(index)[0]].append(result)
        return parts

    def evaluate(self, results: list, logger: Any = None, **options) -> dict[str, float]:
        """Computes the metrics of all images, and of each data set with its number before it.

        Args:
            results: Results of ``pre_eval``, or label maps (H, W), of all images in order.
            logger: Logger or its name.
            **options: Options of the data sets' ``evaluate``.
        """
        if is_list_of(results, np.ndarray):
            results = self.pre_eval(results, list(range(len(self))))
        found: dict[str, float] = {}
        for number, (dataset, own) in enumerate(zip(self.datasets, self.split(results))):
            print_log(f'\n{self.folder(number)}: {len(own)} images', logger)
            values = dataset.evaluate(own, logger=logger, **options)
            found.update({f'{number}_{name}': value for name, value in values.items()})
        if len({type(dataset).pre_eval for dataset in self.datasets}) > 1:
            return found  # Their results cannot be added up.
        print_log(f'\nall together: {len(results)} images', logger)
        return {**self.datasets[0].evaluate(results, logger=logger, **options), **found}
