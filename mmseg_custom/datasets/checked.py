"""The base of every data set here: few-shot lists, and errors that name the file.

H W pixels, K classes. Label files hold 0..K-1 and 255 for what is ignored; with
``reduce_zero_label`` they hold 1..K and 0 for what is ignored. In memory it is always the former.
"""
import os.path as osp
import traceback
from itertools import islice

import mmcv
import numpy as np
from mmcv.utils import print_log
from mmseg.datasets import CustomDataset
from mmseg.datasets.pipelines import Compose, LoadAnnotations
from mmseg.utils import get_root_logger

from ..errors import InputError, comes_from_library, words_of
from .faults import check_decoding
from .few_shot import FewShotList, choose, read_options
from .ground_truth import IGNORE_INDEX
from .nesting import sample_paths
from .transforms import CheckLabels

DISK = dict(backend='disk')  # mmcv's client for files


class CheckedDataset(CustomDataset):
    """mmseg's data set with few-shot lists and with checks of its files.

    A few-shot list is fixed: it depends neither on the run's seed nor on resuming, and a smaller
    one is part of every larger one of its seed (:mod:`.few_shot`).

    Args:
        max_image_num: Number of images to keep, in the order of seed 0; None for all.
        few_shot: Fraction of the images to keep, ``dict(fraction='1/16', seed=0)``.
        **kwargs: Arguments of ``mmseg.datasets.CustomDataset``.

    Attributes:
        few_shot: The :class:`.few_shot.FewShotList` that was chosen, or None.

    Raises:
        InputError: For a missing or empty folder, or an image without its label.
    """

    label_map: dict | None
    img_infos: list[dict]

    def __init__(self, max_image_num: int | None = None, few_shot: dict | None = None, **kwargs):
        super().__init__(**kwargs)
        self.few_shot = self._choose(max_image_num, few_shot)
        if self.label_map is not None:  # mmseg says -1, which numpy 2 refuses to put into uint8
            self.label_map = {old: IGNORE_INDEX if new == -1 else new
                              for old, new in self.label_map.items()}
        num_classes = len(self.CLASSES)
        raw_classes = num_classes + bool(self.reduce_zero_label)
        self._check_raw = CheckLabels(raw_classes, False)
        steps = self.pipeline.transforms
        for i, step in reversed(list(enumerate(steps))):
            if isinstance(step, LoadAnnotations):
                reduced = bool(step.reduce_zero_label)
                steps.insert(i + 1, CheckLabels(num_classes if reduced else raw_classes, reduced,
                                                as_stored=type(step) is LoadAnnotations))

    def _choose(self, max_image_num: int | None, few_shot: dict | None) -> FewShotList | None:
        stems = [osp.splitext(info['filename'])[0] for info in self.img_infos]
        wanted = read_options(max_image_num, few_shot, len(stems))
        if wanted is None:
            return None
        chosen = choose(stems, *wanted)
        names = set(chosen.names)
        self.img_infos = [info for info, stem in zip(self.img_infos, stems) if stem in names]
        print_log(f'few-shot: {chosen}', get_root_logger())
        return chosen

    def load_annotations(self, img_dir: str, img_suffix: str, ann_dir: str | None,
                         seg_map_suffix: str, split: str | None) -> list[dict]:
        """Lists the images, and checks that each is there and has its label."""
        if not osp.isdir(img_dir):
            raise InputError(
                f'image folder {img_dir} does not exist: prepare the data with `python '
                'tools/prepare_data.py`, draw the demo data with `python '
                'tools/make_demo_data.py`, or set data.*.data_root')
        if split is not None and not osp.isfile(split):
            raise InputError(f'{split} does not exist: expected a list of image names, one a line; '
                             '`python tools/prepare_data.py` writes it, or set data.*.split')
        infos = self._list(img_dir, img_suffix, ann_dir, seg_map_suffix, split)
        if not infos:
            raise InputError(f'{split or f"image folder {img_dir}"} holds no {img_suffix} file: '
                             'check data.*.data_root, data.*.img_dir and data.*.split')
        if split is not None:
            self._check_there(infos, img_dir, split)
        unlabelled = self.test_mode and not osp.isdir(ann_dir or '')
        if ann_dir is not None and not unlabelled:
            self._check_pairs(infos, ann_dir)
        return infos

    def _list(self, *args) -> list[dict]:
        return super().load_annotations(*args)

    @staticmethod
    def _check_there(infos: list[dict], img_dir: str, split: str) -> None:
        present = set(mmcv.scandir(img_dir, recursive=True))
        missing = [info['filename'] for info in infos if info['filename'] not in present]
        if missing:
            raise InputError(
                f'image {osp.join(img_dir, missing[0])} does not exist, but {split} lists it '
                f'({len(missing)} of {len(infos)} are missing); add it or correct the list')

    @staticmethod
    def _check_pairs(infos: list[dict], ann_dir: str) -> None:
        present = set(mmcv.scandir(ann_dir, recursive=True)) if osp.isdir(ann_dir) else set()
        missing = [info for info in infos if info['ann']['seg_map'] not in present]
        if missing:
            raise InputError(
                f'image {missing[0]["filename"]} has no label: expected '
                f'{osp.join(ann_dir, missing[0]["ann"]["seg_map"])} ({len(missing)} of '
                f'{len(infos)} images have none); add the label or remove the image')

    def __getitem__(self, idx: int) -> dict:
        """Loads the sample ``idx`` and takes it through the pipeline.

        Raises:
            InputError: If its image or its label has a fault, see :mod:`.faults`.
        """
        try:
            return super().__getitem__(idx)
        except InputError:
            raise
        except Exception as error:
            self._explain(idx, error)
            self._blame_step(idx, error)
            raise

    def _blame_step(self, index: int, error: Exception) -> None:
        """Raises an InputError if a step of the pipeline, or its place in it, is what is wrong."""
        step = failed_step(error)
        # An OSError names its file; a KeyError is of what an earlier step should have made.
        if step is not None and not isinstance(error, OSError) and (
                comes_from_library(error) or isinstance(error, KeyError)):
            image = next(islice(sample_paths(self), index, None))[0]
            raise InputError(f'{step} of the pipeline fails on {image}: {words_of(error)}; correct '
                             'data.*.pipeline') from error

    def _explain(self, index: int, error: Exception) -> None:
        """Raises an InputError if ``error`` comes from a file that cannot be decoded."""
        image, label = list(sample_paths(self))[index]
        for what, path in (('image', image), ('label', label)):
            # Steps of a test may do without the label.
            needed = self._reads_from_disk() and (what == 'image' or not self.test_mode)
            if path is None or not (needed or osp.exists(path)):
                continue
            found = check_decoding(path, what == 'label')
            if found is not None:
                raise InputError(f'{what} {path} {found}') from error

    def _reads_from_disk(self) -> bool:
        """Whether all steps read files from a disk, so that one that is not there has vanished."""
        return all(getattr(step, 'file_client_args', DISK) in ({}, DISK)
                   for step in self.pipeline.transforms)

    def get_gt_seg_map_by_idx(self, index: int) -> np.ndarray:
        """Loads the label map (H, W) of an image as the file has it, and checks it."""
        if 'ann' not in self.img_infos[index]:
            raise InputError(f'{type(self).__name__} has no ann_dir: evaluation needs labels; set '
                             'data.val.ann_dir and data.test.ann_dir')
        path = osp.join(self.ann_dir or '', self.img_infos[index]['ann']['seg_map'])
        if not osp.isfile(path):
            raise InputError(f'label {path} does not exist: evaluation needs it; use '
                             '--format-only on images without labels')
        try:
            labels = super().get_gt_seg_map_by_idx(index)
        except Exception as error:
            self._explain(index, error)
            raise
        self._check_raw.check(labels, path)
        return labels


def failed_step(error: Exception) -> str | None:
    """Returns the innermost step of a pipeline that an error comes from: 'step 3 (Resize)'."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        pipeline, step = frame.f_locals.get('self'), frame.f_locals.get('t')
        if isinstance(pipeline, Compose) and step in pipeline.transforms:
            shown = [each for each in pipeline.transforms if not isinstance(each, CheckLabels)]
            if step in shown:
                found = f'step {shown.index(step)} ({type(step).__name__})'
    return found
