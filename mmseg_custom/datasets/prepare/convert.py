"""Labels as they are published -> labels as they are trained on, by mmseg's own converters.

The converters are the scripts of mmseg's wheel, in `mmseg/.mim/tools/convert_datasets`, of which
the functions for one file are called. A label is written to a temporary folder and renamed: one
that has its name is whole, and a run that was stopped can be resumed.
"""
import functools
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import mmseg

from ...errors import InputError
from ...files import atomic_write
from ..workers import convert_all
from .layouts import DatasetLayout

STAGE = '.converting'
SCRIPTS = Path(mmseg.__file__).parent / '.mim/tools/convert_datasets'
DETAIL = "'git+https://github.com/zhanghang1989/detail-api#subdirectory=PythonAPI'"
# Data set -> (mmseg's script, what it imports, what to install for that)
NEEDS = {
    'cityscapes': ('cityscapes', 'cityscapesscripts', 'cityscapesscripts'),
    'coco_stuff164k': ('coco_stuff164k', '', ''),
    'pascal_context59': ('pascal_context', 'detail', DETAIL),
    'voc2012': ('voc_aug', 'scipy', 'scipy'),
}
_details: dict[str, Any] = {}  # Pascal Context: split -> Detail, for forked workers


@dataclass(frozen=True)
class Conversion:
    """One label to convert.

    Attributes:
        data_set: Data set whose converter is called.
        function: Name of the converter's function.
        arguments: Arguments of the function, with which it writes ``staged``.
        source: Path of the published label, for messages.
        staged: Path that the function writes to.
        target: Path of the converted label.
    """
    data_set: str
    function: str
    arguments: tuple
    source: Path
    staged: Path
    target: Path


@functools.cache
def script(data_set: str) -> ModuleType:
    """Loads mmseg's converter for a data set.

    Raises:
        InputError: If a package that it needs is missing.
    """
    name, package, install = NEEDS[data_set]
    loader = SourceFileLoader(f'mmseg_convert_{name}', str(SCRIPTS / f'{name}.py'))
    module = ModuleType(loader.name)
    try:
        loader.exec_module(module)
    except ImportError as error:
        other = '' if error.name == package else f' ({error})'
        raise InputError(f'converting the labels of {data_set} needs the package {package}{other}: '
                         f'pip install {install}') from error
    return module


def require(layout: DatasetLayout, coming: Sequence[str]) -> None:
    """Checks that new labels can be converted, before anything is unpacked."""
    if layout.name != 'voc2012' or any(path.startswith('sbd/') for path in coming):
        script(layout.name)


def labels(layout: DatasetLayout, root: Path, workers: int) -> int:
    """Converts the labels that are not converted yet.

    Returns:
        The number of labels that were written.

    Raises:
        InputError: If one cannot be converted, after the others are; or a package is missing.
    """
    stage = root / STAGE
    shutil.rmtree(stage, ignore_errors=True)  # of a run that was stopped
    find = {'cityscapes': _cityscapes, 'coco_stuff164k': _coco_stuff,
            'pascal_context59': _pascal_context, 'voc2012': _voc_aug}[layout.converter]
    try:
        jobs = [job for job in find(root, stage) if not _is_there(job.target)]
        for folder in {job.staged.parent for job in jobs} | {job.target.parent for job in jobs}:
            folder.mkdir(parents=True, exist_ok=True)
        done = convert_all(_convert, jobs, workers, 'converting')
    except OSError as error:
        raise InputError(f'{error.filename or root}: {error.strerror or error}; what was converted '
                         'is whole: run the command again when that is mended') from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        _details.clear()
    return done


def _is_there(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _convert(job: Conversion) -> None:
    try:
        arguments = [_details.get(word, word) if isinstance(word, str) else word
                     for word in job.arguments]
        getattr(script(job.data_set), job.function)(*arguments)
    except OSError:
        raise
    except Exception as error:  # whatever a converter raises, this is the file it is about
        raise InputError(f'{job.source} cannot be converted ({type(error).__name__}: {error}): '
                         'fetch it again') from error
    os.replace(job.staged, job.target)


def _cityscapes(root: Path, stage: Path) -> list[Conversion]:
    """Polygons -> the 19 classes that are scored. The converter writes beside the polygons."""
    jobs = []
    for split in ('train', 'val'):  # the polygons of test are dummies
        for source in sorted((root / 'gtFine' / split).glob('*/*_gtFine_polygons.json')):
            beside = stage / split / source.name
            beside.parent.mkdir(parents=True, exist_ok=True)
            beside.symlink_to(source.resolve())
            name = source.name.replace('_polygons.json', '_labelTrainIds.png')
            jobs.append(Conversion('cityscapes', 'convert_json_to_label', (str(beside),), source,
                                   beside.with_name(name), source.with_name(name)))
    return jobs


def _coco_stuff(root: Path, stage: Path) -> list[Conversion]:
    """Ids with gaps -> 0..170."""
    jobs = []
    for split in ('train2017', 'val2017'):
        for source in sorted((root / 'annotations' / split).glob('*.png')):
            if not source.stem.endswith('_labelTrainIds'):
                name = f'{source.stem}_labelTrainIds.png'
                jobs.append(Conversion('coco_stuff164k', 'convert_to_trainID',
                                       (str(source), str(stage), split == 'train2017'), source,
                                       stage / split / name, source.with_name(name)))
    return jobs


def _pascal_context(root: Path, stage: Path) -> list[Conversion]:
    """One JSON of all labels -> a file for each, and the lists of the splits."""
    source = root / 'trainval_merged.json'
    if not source.is_file():
        return []
    detail = script('pascal_context59').Detail
    jobs = []
    for split in ('train', 'val'):
        _details[f'detail {split}'] = detail(str(source), str(root / 'JPEGImages'), split)
        images = _details[f'detail {split}'].getImgs()
        names = sorted(Path(image['file_name']).stem for image in images)
        _write_list(root / f'ImageSets/SegmentationContext/{split}.txt', names)
        for image in images:
            name = image['file_name'].replace('jpg', 'png')
            jobs.append(Conversion('pascal_context59', 'generate_labels',
                                   (image, f'detail {split}', str(stage)), source, stage / name,
                                   root / 'SegmentationClassContext' / name))
    return jobs


def _voc_aug(root: Path, stage: Path) -> list[Conversion]:
    """Labels of SBD, where they were given: MATLAB -> PNG, and the lists aug and trainaug."""
    folder = root / 'sbd'
    if not folder.is_dir():
        return []
    sets = root / 'ImageSets/Segmentation'
    train, val = _read_list(sets / 'train.txt'), _read_list(sets / 'val.txt')
    aug = _read_list(folder / 'train.txt') | _read_list(folder / 'val.txt')
    _write_list(sets / 'aug.txt', sorted(aug - train - val))
    _write_list(sets / 'trainaug.txt', sorted((aug | train) - val))
    return [Conversion('voc2012', 'convert_mat', (source.name, str(source.parent), str(stage)),
                       source, stage / f'{source.stem}.png',
                       root / 'SegmentationClassAug' / f'{source.stem}.png')
            for source in sorted((folder / 'cls').glob('*.mat'))]


def _read_list(path: Path) -> set[str]:
    return set(path.read_text().split())


def _write_list(path: Path, names: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, ''.join(f'{name}\n' for name in names).encode())
