"""What mmseg 0.30 makes of the numbers in label files, and of pixels that are ignored.

H W pixels, K classes. A label file holds *stored* numbers: classes from 0 on, or with
``reduce_zero_label`` from 1 on, with 0 for what is ignored.
"""
import os.path as osp
from collections.abc import Mapping
from functools import wraps
from typing import Any

import mmcv
import numpy as np
from torch import Tensor

from ..datasets.ground_truth import IGNORE_INDEX, class_numbers


def map_stored_numbers() -> None:
    """Lets ``classes=[...]`` select classes of data sets with ``reduce_zero_label``.

    mmseg 0.30 makes a ``label_map`` of class numbers, and applies it to stored numbers, before
    ``reduce_zero_label`` subtracts 1: ADE20K's buildings become "wall". Here the map is one of
    stored numbers, which is right for everything that applies it: loading, metrics, and
    ``intersect_and_union``. It also says 255 for what is left out, where mmseg says -1, which numpy
    2 refuses to put into uint8. Can go with mmseg 0.30.
    """
    from mmseg.datasets import CustomDataset
    derive = CustomDataset.get_classes_and_palette

    @wraps(derive)
    def get_classes_and_palette(self: CustomDataset, *args, **kwargs) -> tuple:
        before = self.label_map
        found = derive(self, *args, **kwargs)
        if self.label_map is not None and self.label_map is not before:
            self.label_map = of_stored_numbers(self.label_map, bool(self.reduce_zero_label))
        return found

    CustomDataset.get_classes_and_palette = get_classes_and_palette


def of_stored_numbers(label_map: Mapping[int, int], zero_is_ignored: bool) -> dict[int, int]:
    """Turns a map of class numbers, with -1 for what is left out, into one of stored numbers."""
    shift = int(zero_is_ignored)
    return {old + shift: new + shift if 0 <= new else IGNORE_INDEX
            for old, new in label_map.items() if old + shift < IGNORE_INDEX}


def keep_axes_of_labels() -> None:
    """Lets labels have a single row or column.

    mmseg 0.30 drops all axes of length 1, of which only that of a single channel is superfluous.
    Also, it searches a label once for each entry of a ``label_map``; here a table is read. Can go
    with mmseg 0.30.
    """
    from mmseg.datasets.pipelines import LoadAnnotations

    def load(self: LoadAnnotations, results: dict) -> dict:
        """Sets ``gt_semantic_seg`` (H, W): classes, and 255 for what is ignored."""
        if self.file_client is None:
            self.file_client = mmcv.FileClient(**self.file_client_args)
        path = osp.join(results.get('seg_prefix') or '', results['ann_info']['seg_map'])
        stored = mmcv.imfrombytes(self.file_client.get(path), flag='unchanged',
                                  backend=self.imdecode_backend)
        stored = (stored.squeeze() if stored.ndim > 2 else stored).astype(np.uint8)
        results['gt_semantic_seg'] = class_numbers(stored, self.reduce_zero_label,
                                                   results.get('label_map'))
        results['seg_fields'].append('gt_semantic_seg')
        return results

    LoadAnnotations.__call__ = load


def count_no_ignored_pixel() -> None:
    """Lets the accuracy of labels that are all ignored be 0.

    mmseg 0.30 says 100. Can go with mmseg 0.30.
    """
    from mmseg.models.decode_heads import decode_head, point_head
    from mmseg.models.losses import accuracy as of_mmseg

    @wraps(of_mmseg)
    def accuracy(pred: Tensor, target: Tensor, *args, ignore_index: int | None = None,
                 **kwargs) -> Any:
        found = of_mmseg(pred, target, *args, ignore_index=ignore_index, **kwargs)
        if ignore_index is None:
            return found
        counts = (target != ignore_index).any()
        return [part * counts for part in found] if isinstance(found, list) else found * counts

    decode_head.accuracy = point_head.accuracy = accuracy
