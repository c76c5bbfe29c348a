"""The base of every data set here: few-shot lists, and errors that name the file.

H W pixels, K classes. :mod:`.ground_truth` says what the numbers in label files mean.
"""
import os.path as osp
from collections.abc import Iterator, Sequence

import numpy as np
from mmseg.datasets import CustomDataset
from mmseg.datasets.pipelines import LoadAnnotations
from mmseg.utils import get_root_logger

from ..errors import InputError
from ..logs import log_details
from ..missing import look_around
from .class_names import class_names
from .few_shot import FewShotList, choose, read_options
from .listing import ANY, DISK, Folder, check_pairs, list_samples, read_lines, unread
from .sample_errors import fault_of_file, fault_of_step
from .transforms import CheckLabels, may_change_labels


class CheckedDataset(CustomDataset):
    """mmseg's data set with few-shot lists and with checks of its files.

    A few-shot list is fixed: it depends neither on the run's seed nor on resuming, and a smaller
    one is part of every larger one of its seed (:mod:`.few_shot`).

    Args:
        max_image_num: Number of images to keep, in the order of seed 0; None for all.
        few_shot: Fraction of the images to keep, ``dict(fraction='1/16', seed=0)``.
        img_suffix: Suffix of the images, 'any' for all usual ones in any case; default: that of
            the data set.
        seg_map_suffix: Suffix of the labels, as above.
        **kwargs: Arguments of ``mmseg.datasets.CustomDataset``.

    Attributes:
        few_shot: The :class:`.few_shot.FewShotList` that was chosen, or None.

    Raises:
        InputError: For a missing or empty folder, an image without its label, or unknown classes.
    """

    label_map: dict | None
    img_infos: list[dict]
    any_suffix = f'img_suffix={ANY!r}'  # the setting that reads all usual suffixes
    _check_pairs = staticmethod(check_pairs)  # the doctor replaces it, to list all such images

    def __init__(self, max_image_num: int | None = None, few_shot: dict | None = None,
                 img_suffix: str | None = None, seg_map_suffix: str | None = None, **kwargs):
        self._suffixes = (img_suffix, seg_map_suffix)  # replace those that mmseg's classes set
        super().__init__(**kwargs)
        if self.CLASSES is None:
            raise InputError('no classes are named: set data.*.classes to a list of names, or to a '
                             'file with one a line')
        if self.PALETTE is not None and len(self.PALETTE) != len(self.CLASSES):
            get_root_logger().warning('palette of %s has %d colours for %d classes: pictures need '
                                      'one of each', type(self).__name__, len(self.PALETTE),
                                      len(self.CLASSES))
        self.few_shot = self._choose(max_image_num, few_shot)
        reduced = bool(self.reduce_zero_label)
        if reduced and self.gt_seg_map_loader.reduce_zero_label:
            raise InputError(f'{type(self).__name__}: gt_seg_map_loader_cfg and the data set both '
                             'have reduce_zero_label=True, which would subtract 1 twice in '
                             'evaluation: leave it out of gt_seg_map_loader_cfg')
        self._check_raw = self._check_of(reduced, reduced_on_loading=False)
        steps = self.pipeline.transforms
        for i, step in reversed(list(enumerate(steps))):
            if isinstance(step, LoadAnnotations):
                self._check_step(step)
                if may_change_labels(steps[i + 1:]):
                    continue  # What the heads take is checked at the end of the pipeline.
                steps.insert(i + 1, self._check_of(reduced, bool(step.reduce_zero_label),
                                                   type(step) is LoadAnnotations))

    def _check_of(self, reduced: bool, reduced_on_loading: bool,
                  as_stored: bool = True) -> CheckLabels:
        """Returns the check of labels as loaded."""
        raw = reduced and not reduced_on_loading
        return CheckLabels(len(self.CLASSES) + raw, reduced_on_loading, as_stored,
                           self.ignore_index, of_file=len(self._all_classes()) + raw)

    def _check_step(self, step: LoadAnnotations) -> None:
        """Refuses to select classes where it is not known which number is the first."""
        if self.label_map is not None and bool(step.reduce_zero_label) != bool(
                self.reduce_zero_label):
            raise InputError(
                f'{type(self).__name__} selects classes, and its reduce_zero_label='
                f'{bool(self.reduce_zero_label)} differs from that of {type(step).__name__} in the '
                f'pipeline: set both to the same')

    def _all_classes(self) -> Sequence[str]:
        """Returns the classes that the files hold, of which ``classes`` selects some."""
        return self.CLASSES if self.label_map is None else type(self).CLASSES

    def _choose(self, max_image_num: int | None, few_shot: dict | None) -> FewShotList | None:
        stems = [osp.splitext(info['filename'])[0] for info in self.img_infos]
        wanted = read_options(max_image_num, few_shot, len(stems))
        if wanted is None:
            return None
        chosen = choose(stems, *wanted)
        names = set(chosen.names)
        self.img_infos = [info for info, stem in zip(self.img_infos, stems) if stem in names]
        get_root_logger().info('few-shot: %s', chosen)
        return chosen

    def load_annotations(self, img_dir: str, img_suffix: str, ann_dir: str | None,
                         seg_map_suffix: str, split: str | None) -> list[dict]:
        """Lists the images, checks that each exists and has a label, and logs what is not read.

        Data that is not on a disk is listed by mmseg, without checks.

        Raises:
            InputError: If a folder, a split, or the label of an image does not exist.
        """
        self.img_suffix = img_suffix = self._suffixes[0] or img_suffix
        self.seg_map_suffix = seg_map_suffix = self._suffixes[1] or seg_map_suffix
        if self.file_client_args not in ({}, DISK):
            return super().load_annotations(img_dir, img_suffix, ann_dir, seg_map_suffix, split)
        if not osp.isdir(img_dir):
            raise InputError(
                f'image folder {img_dir} does not exist' + look_around(
                    img_dir, 'prepare the data with `python tools/prepare_data.py`, draw the demo '
                    'data with `python tools/make_demo_data.py`, or set data.*.data_root'))
        if split is not None and not osp.isfile(split):
            expected = ('expected a list of image names, one a line; `python '
                        'tools/prepare_data.py` writes it, or set data.*.split')
            raise InputError(f'{split} is a folder: {expected}' if osp.isdir(split) else
                             f'{split} does not exist{look_around(split, expected)}')
        in_one = ann_dir is not None and osp.realpath(ann_dir) == osp.realpath(img_dir)
        if in_one and img_suffix == seg_map_suffix:
            raise InputError(f'{img_dir} is the folder of images and of labels, and both end in '
                             f'{img_suffix}: each label would be its own image; set ann_dir, or '
                             'another img_suffix or seg_map_suffix')
        folder = Folder.of(img_dir)
        infos = self._list(folder, img_suffix, ann_dir, seg_map_suffix, split)
        others, rest = unread(
            folder, img_suffix, [info['filename'] for info in infos],
            seg_map_suffix if in_one else None)
        if not infos:
            raise InputError(f'{split or f"image folder {img_dir}"} holds no {img_suffix} file'
                             + (f', but {others}: set {self.any_suffix}, or check'
                                if others and split is None else ': check') +
                             ' data.*.data_root, data.*.img_dir and data.*.split')
        if split is None:
            self._log_unread(len(infos), others, rest)
        unlabelled = self.test_mode and not osp.isdir(ann_dir or '')
        if ann_dir is not None and not unlabelled:
            self._check_pairs(infos, ann_dir)
        return infos

    def _list(self, folder: Folder, img_suffix: str, ann_dir: str | None, seg_map_suffix: str,
              split: str | None) -> list[dict]:
        """Lists the samples: mmseg's way where it, or a data set with a way of its own, can."""
        own = super().load_annotations.__func__ is not CustomDataset.load_annotations
        if own or split is None and ANY not in (img_suffix, seg_map_suffix):
            infos = super().load_annotations(folder.path, img_suffix, ann_dir, seg_map_suffix,
                                             split)
            if not own:  # mmseg leaves hidden files out, and reads those in hidden folders
                infos = [info for info in infos if info['filename'] not in folder.hidden]
            missing = [info['filename'] for info in infos if info['filename'] not in folder.files]
            if missing and split is not None:
                raise InputError(
                    f'image {osp.join(folder.path, missing[0])} does not exist, but {split} lists '
                    f'it ({len(missing)} of {len(infos)} are missing); add it or correct the list')
            return infos
        names = None
        if split is not None:
            with open(split, 'rb') as file:
                names = read_lines(file.read())
        infos = list_samples(folder, img_suffix, None if ann_dir is None else Folder.of(ann_dir),
                             seg_map_suffix, names, split or '')
        log_details('Loaded %d images', len(infos))
        return infos

    def _log_unread(self, count: int, others: str | None, rest: str | None) -> None:
        """Says which files of the image folder are not read."""
        log = get_root_logger()
        beside = f'; beside them {rest}' if rest else ''
        if others:
            log.warning('%s: %d images are read, and not %s: set %s to read all usual suffixes in '
                        'any case, or rename them%s', self.img_dir, count, others, self.any_suffix,
                        beside)
        elif rest:
            log.info('%s: %d images are read, and not %s', self.img_dir, count, rest)

    def get_classes_and_palette(self, classes: str | Sequence[str] | None = None,
                                palette: object = None) -> tuple:
        """Finds names and colours of the classes; see mmseg's method.

        Args:
            classes: Names, or a file with one a line; blanks around a name do not count.
            palette: Colours.

        Raises:
            InputError: If the file does not exist, or a name is there twice or is of no class.
        """
        if isinstance(classes, (str, list, tuple)):
            classes = class_names(classes, self.CLASSES, type(self).__name__)
        found = super().get_classes_and_palette(classes, palette)
        if palette is not None and found[1] is not palette:
            get_root_logger().warning('%s: palette has no effect, its classes have colours of '
                                      'their own', type(self).__name__)
        return found

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
            found = fault_of_file(self, idx) or fault_of_step(self, idx, error)
            if found is None:
                raise
            raise found from error

    def get_gt_seg_map_by_idx(self, index: int) -> np.ndarray:
        """Loads the label map (H, W) of an image as the file has it, and checks it.

        Raises:
            InputError: If there is no label, or what it holds does not fit the classes.
        """
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
            found = fault_of_file(self, index)
            if found is None:
                raise
            raise found from error
        self._check_raw.check(labels, path)
        return labels

    def get_gt_seg_maps(self, efficient_test: bool | None = None) -> Iterator[np.ndarray]:
        """Loads the label map (H, W) of each image like :meth:`get_gt_seg_map_by_idx`."""
        return map(self.get_gt_seg_map_by_idx, range(len(self)))

    def results2img(self, results: list[np.ndarray], *args, **kwargs) -> list[str]:
        """Writes label files for a server, in the numbers of all classes of the data set.

        Only for data sets that have such a format.

        Args:
            results: Label maps (H, W) of the classes that were selected.
            *args: Further arguments of mmseg's method.
            **kwargs: Further arguments of mmseg's method.
        """
        if self.label_map is not None:
            everything = list(self._all_classes())
            numbers = np.array([everything.index(name) for name in self.CLASSES])
            results = [numbers[result] for result in results]
        return super().results2img(results, *args, **kwargs)
