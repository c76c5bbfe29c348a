"""ADE20K, with few-shot subsets and errors that name the file.

H W pixels, K = 150 classes. Label files hold 0 for "other", which is ignored, and 1..K; in memory
the classes are 0..K-1 and what is ignored is 255.
"""
import os.path as osp

import mmcv
import numpy as np
from mmcv.utils import print_log
from mmseg.datasets.ade import ADE20KDataset as MMSegADE20KDataset
from mmseg.datasets.builder import DATASETS
from mmseg.datasets.pipelines import LoadAnnotations
from mmseg.utils import get_root_logger

from ..errors import InputError
from .few_shot_subset import few_shot_subset
from .transforms import CheckLabels


@DATASETS.register_module(force=True)
class ADE20KDataset(MMSegADE20KDataset):
    """mmseg's ADE20K data set with ``max_image_num``, the few-shot subset.

    The subset is fixed: it depends neither on the run's seed nor on resuming, and a smaller one is
    part of every larger one (:func:`.few_shot_subset.few_shot_subset`).

    Args:
        max_image_num: Number of images to keep; None for all.
        **kwargs: Of ``mmseg.datasets.CustomDataset``.

    Raises:
        InputError: For a missing or empty folder, or an image without its label.
    """

    def __init__(self, max_image_num: int | None = None, **kwargs):
        super().__init__(**kwargs)
        if max_image_num is not None:
            self._keep(max_image_num)
        num_classes = len(self.CLASSES)
        self._check_raw = CheckLabels(num_classes + 1, reduce_zero_label=False)
        steps = self.pipeline.transforms
        for i in reversed(range(len(steps))):
            if isinstance(steps[i], LoadAnnotations):
                reduced = steps[i].reduce_zero_label
                steps.insert(i + 1, CheckLabels(num_classes) if reduced else self._check_raw)

    def _keep(self, count: int) -> None:
        stems = [osp.splitext(info['filename'])[0] for info in self.img_infos]
        subset = few_shot_subset(stems, count)
        self.img_infos = [info for info, stem in zip(self.img_infos, stems) if stem in subset]
        print_log(f'few-shot: {len(self.img_infos)} of {len(stems)} images', get_root_logger())

    def load_annotations(self, img_dir: str, img_suffix: str, ann_dir: str | None,
                         seg_map_suffix: str, split: str | None) -> list[dict]:
        """Lists the images, and checks that each has its label."""
        if not osp.isdir(img_dir):
            raise InputError(
                f'image folder {img_dir} does not exist: unpack or link the data there, draw the '
                'demo data with `python tools/make_demo_data.py`, or set data.*.data_root')
        infos = super().load_annotations(img_dir, img_suffix, ann_dir, seg_map_suffix, split)
        if not infos:
            raise InputError(f'image folder {img_dir} holds no {img_suffix} file: expected the '
                             'images of ADE20K; check data.*.data_root and data.*.img_dir')
        unlabelled = self.test_mode and not osp.isdir(ann_dir or '')
        if ann_dir is not None and not unlabelled:
            self._check_pairs(infos, ann_dir)
        return infos

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
        """The sample ``idx`` after the pipeline.

        Raises:
            InputError: If its image or its label cannot be decoded, or a label is out of range.
        """
        try:
            return super().__getitem__(idx)
        except InputError:
            raise
        except Exception as error:
            self._explain(self.img_infos[idx], error)
            raise

    def _explain(self, info: dict, error: Exception) -> None:
        """Raises an InputError if a file of this sample is what ``error`` comes from."""
        files = [(osp.join(self.img_dir or '', info['filename']), 'image')]
        if self.ann_dir and 'ann' in info:
            files.append((osp.join(self.ann_dir, info['ann']['seg_map']), 'label'))
        for path, kind in files:
            try:
                found = mmcv.imread(path, 'unchanged', backend='cv2') is not None
            except Exception:  # whatever the decoder raises, the file is what it could not read
                found = False
            if not found:
                raise InputError(f'{kind} {path} cannot be decoded ({type(error).__name__}): '
                                 'replace the file or remove the sample') from error

    def get_gt_seg_map_by_idx(self, index: int) -> np.ndarray:
        """The label map (H, W) of an image as the file has it (0..K), checked."""
        path = osp.join(self.ann_dir or '', self.img_infos[index]['ann']['seg_map'])
        if not osp.isfile(path):
            raise InputError(f'label {path} does not exist: evaluation needs it; use '
                             '--format-only on images without labels')
        labels = super().get_gt_seg_map_by_idx(index)
        self._check_raw.check(labels, path)
        return labels
