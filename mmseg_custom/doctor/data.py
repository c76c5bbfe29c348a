"""Checks the data of a config: pairs, headers, pixels, label values, and leaks between the splits.

Names are checked of every file; headers, for half of the time, and then pixels, of as many in
random order as fit into it. Data sets that repeat or concatenate others are checked one by one.
"""
import os
import os.path as osp
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import mmcv
from mmcv import Config
from mmseg.datasets import CustomDataset
from mmseg.datasets.builder import DATASETS
from torch.utils.data import Dataset

from ..datasets import faults
from ..datasets.build import build_test_dataset, build_train_dataset
from ..datasets.class_names import ClassMismatch
from ..datasets.faults import Header, Problem
from ..datasets.learnable import check_learnable
from ..datasets.listing import ANY, SUFFIXES
from ..datasets.nesting import innermost_datasets, innermost_options, sample_paths
from ..engine.classes import (
    check_ignored,
    check_joined_classes,
    check_label_numbers,
    check_scored_classes,
)
from ..errors import InputError, words_of
from . import images
from .findings import FAULT, Finding, fault, warning

SPLITS = ('train', 'val', 'test')
FILES = ('type', 'data_root', 'img_dir', 'ann_dir', 'split', 'description', 'part')
PART = 'data'
Problems = dict[Problem, list[str]]  # -> paths of the files that have it


@dataclass
class DatasetFiles:
    """The files of one data set that neither repeats nor concatenates others.

    Attributes:
        split: 'train', 'val' or 'test'.
        dataset: The data set, built without its own checks.
        pairs: (image, label) paths; the label is None where none is expected.
        decoded: Number of pairs whose pixels were read.
        pixels: Digest of an image's pixels -> its path.
    """
    split: str
    dataset: CustomDataset
    pairs: list[tuple[str, str | None]]
    decoded: int = 0
    pixels: dict[str, str] = field(default_factory=dict)


def check_data(cfg: Config, seconds: float = 24) -> tuple[list[Finding], dict]:
    """Checks the data of all splits.

    Args:
        cfg: The config.
        seconds: Time to spend, about.

    Returns:
        (findings, figures: number of images and of decoded pairs by split).
    """
    findings, opened = _open_all(cfg)
    for files in opened:
        findings += _check_names(files)
        findings += _check_files(files, seconds / len(opened))
    findings += _check_leaks(opened)
    names = list(dict.fromkeys(files.split for files in opened))
    if not any(f.level == FAULT for f in findings):
        findings += _check_pipelines(cfg, names)
    return findings, {name: dict(
        images=sum(len(files.pairs) for files in opened if files.split == name),
        decoded=sum(files.decoded for files in opened if files.split == name)) for name in names}


def _open_all(cfg: Config) -> tuple[list[Finding], list[DatasetFiles]]:
    """Opens the data sets of all splits; one of val that test repeats only once."""
    findings, opened, known = [], [], []
    for name in SPLITS:
        try:
            for options in innermost_options(cfg.data.get(name) or []):
                key = {k: options.get(k) for k in FILES}
                if name == 'train' or key not in known:
                    opened.append(_open(name, options))
                if name != 'train':
                    known.append(key)
        except InputError as error:
            findings.append(_as_finding(name, error))
    return findings, opened


def _open(split: str, options: dict) -> DatasetFiles:
    """Builds a data set that lists its files and checks none of them."""
    kind = DATASETS.get(options.get('type'))
    if kind is None:
        raise InputError(f'type={options.get("type")!r} is no data set that is registered')
    unchecked = type(kind.__name__, (kind,), dict(_check_pairs=staticmethod(lambda *_: None)))
    arguments = {k: v for k, v in options.items() if k != 'type'}
    try:
        dataset = unchecked(**{**arguments, 'test_mode': split != 'train'})
    except TypeError as error:  # of an option that it does not know, or that is missing
        raise InputError(f'{options["type"]} cannot be built: {error}; correct its '
                         'options') from error
    if not len(dataset):
        raise InputError(f'{dataset.img_dir} holds no {dataset.img_suffix} file')
    return DatasetFiles(split, dataset, list(sample_paths(dataset)))


def _as_finding(name: str, error: InputError) -> Finding:
    return fault(PART, f'data.{name}: {error}', 'until then nothing of it is checked')


def _as_findings(problems: Problems) -> list[Finding]:
    """Makes one finding of each problem, about all files that have it."""
    return [(fault if problem.level == faults.FAULT else warning)(
        PART, f'it {problem.message}', problem.way_out, sorted(paths))
        for problem, paths in problems.items()]


def _check_names(files: DatasetFiles) -> list[Finding]:
    """Finds missing and left-over files, other suffixes, and names with a fault or a note."""
    findings, dataset = [], files.dataset
    missing = [image for image, label in files.pairs if label and not osp.isfile(label)]
    if missing:
        findings.append(fault(
            PART, f'the image has no label in {dataset.ann_dir}',
            'add the label or remove the image', missing))
    if dataset.ann_dir and osp.isdir(dataset.ann_dir) and not dataset.split and (
            getattr(dataset, 'few_shot', None) is None):
        wanted = {label for _, label in files.pairs}
        suffix = dataset.seg_map_suffix
        left = [path for path in _scan(dataset.ann_dir, SUFFIXES if suffix == ANY else suffix)
                if path not in wanted]
        if left:
            findings.append(fault(PART, f'the label has no image in {dataset.img_dir}',
                                  'add the image or remove the label', left))
    in_one = dataset.ann_dir and osp.realpath(dataset.ann_dir) == osp.realpath(dataset.img_dir)
    read = (dataset.img_suffix, *([dataset.seg_map_suffix] if in_one else []))
    others = [path for path in _scan(dataset.img_dir, SUFFIXES)
              if dataset.img_suffix != ANY and not path.endswith(read)]
    if others:
        findings.append(fault(
            PART, f'it is not read: images of data.{files.split} end in {dataset.img_suffix}',
            f'rename it, or set img_suffix, to {ANY!r} for all usual ones', others))
    problems: Problems = defaultdict(list)
    for image, _ in files.pairs:
        plain = image.encode('utf-8', 'backslashreplace').decode()
        _add(problems, plain, faults.check_name(osp.basename(image)))
    return findings + _as_findings(problems)


def _scan(folder: str, suffix: str | tuple) -> list[str]:
    return [osp.join(folder, name) for name in sorted(mmcv.scandir(
        folder, suffix, recursive=True, case_sensitive=False))]


def _add(problems: Problems, path: str, problem: Problem | None) -> None:
    if problem is not None:
        problems[problem].append(path)


def _check_files(files: DatasetFiles, seconds: float) -> list[Finding]:
    """Checks headers for half of the time, then pixels of those without fault, in random order."""
    problems: Problems = defaultdict(list)
    order = list(files.pairs)
    random.Random(0).shuffle(order)
    end = time.monotonic() + seconds
    headers_end = time.monotonic() + seconds / 2
    sound = []
    for image, label in order:
        if time.monotonic() > headers_end:
            break
        if _check_headers(image, label, problems):
            sound.append((image, label))
    for image, label in sound:
        if time.monotonic() > end:
            break
        _check_pixels(files, image, label, problems)
        files.decoded += 1
    findings = _as_findings(problems)
    if 0 < files.decoded == len(problems.get(faults.problem('nothing labelled'), ())):
        findings.append(fault(PART, 'no label that was read has a pixel of a class',
                              'check the labels and reduce_zero_label', files.dataset.ann_dir))
    elif files.split == 'train':
        findings += _check_learnable(files.dataset)
    return findings


def _check_learnable(dataset: CustomDataset) -> list[Finding]:
    """Checks what a run looks at before it starts: see :mod:`..datasets.learnable`."""
    way_out = 'correct the labels, classes or reduce_zero_label'
    try:
        return [warning(PART, line, way_out) for line in check_learnable(dataset)]
    except InputError as error:
        return [fault(PART, str(error).partition(';')[0], way_out)]


def _check_headers(image: str, label: str | None, problems: Problems) -> bool:
    """Checks the headers of a pair; returns whether its pixels can be read."""
    found = _read_header(image, problems)
    if label is None or not osp.isfile(label):
        return found is not None
    other = _read_header(label, problems, is_label=True)
    if found is None or other is None:
        return False
    pair = faults.check_pair(found.loaded_size, other.stored_size, found.orientation)
    _add(problems, image, pair)
    return pair is None or pair.level != faults.FAULT


def _read_header(path: str, problems: Problems, is_label: bool = False) -> Header | None:
    """Reads and checks a header; None if it has a fault."""
    header = images.read_header(path, is_label)
    if isinstance(header, Problem):
        _add(problems, path, header)
        return None
    found = faults.check_label(header) if is_label else faults.check_image(header)
    for problem in found:
        _add(problems, path, problem)
    return None if any(problem.level == faults.FAULT for problem in found) else header


def _check_pixels(files: DatasetFiles, image: str, label: str | None, problems: Problems) -> None:
    pixels = images.decode(image)
    if isinstance(pixels, Problem):
        _add(problems, image, pixels)
        return
    files.pixels[f'{pixels.shape}{hash(pixels.tobytes())}'] = image
    if label is None or not osp.isfile(label):
        return
    labels, dataset = images.decode(label), files.dataset
    if isinstance(labels, Problem):
        _add(problems, label, labels)
        return
    with open(label, 'rb') as file:
        damage = faults.check_png(file)
    if damage:
        _add(problems, label, damage[0])
    else:
        zero_is_ignored = bool(dataset.reduce_zero_label)
        selected = dataset.label_map is not None
        classes = type(dataset).CLASSES if selected else dataset.CLASSES
        _add(problems, label, faults.check_values(
            labels, len(classes) - (not zero_is_ignored), zero_is_ignored, dataset.label_map,
            dataset.ignore_index))


def _check_leaks(opened: list[DatasetFiles]) -> list[Finding]:
    """Finds images that are trained on and tested on: by name, by content, by pixels."""
    findings = []
    trained = [files for files in opened if files.split == 'train']
    for other in opened:
        if other.split == 'train' or not trained:
            continue
        shared = next((files for files in trained if _same_folder(files, other)), None)
        if shared is not None:
            findings.append(fault(
                PART, f'data.train and data.{other.split} read the same folder',
                f'set data.{other.split}.img_dir and ann_dir', shared.dataset.img_dir))
        else:
            findings += _leaks(trained, other)
    for name in dict.fromkeys(files.split for files in opened):
        twice = _same_content([image for files in opened if files.split == name
                               for image, _ in files.pairs])
        if twice:
            findings.append(warning(
                PART, f'it has the same content as {osp.basename(twice[0][1])}, also in '
                f'data.{name}', 'remove one of them', [first for first, _ in twice]))
    return findings


def _same_folder(one: DatasetFiles, other: DatasetFiles) -> bool:
    return osp.realpath(one.dataset.img_dir) == osp.realpath(other.dataset.img_dir) and not (
        one.dataset.split or other.dataset.split)


def _leaks(trained: list[DatasetFiles], other: DatasetFiles) -> list[Finding]:
    way_out = f'remove it from data.train or data.{other.split}'
    train_images = [image for files in trained for image, _ in files.pairs]
    stems = {_stem(image) for image in train_images}
    named = [image for image, _ in other.pairs if _stem(image) in stems]
    copies = dict(_same_content([image for image, _ in other.pairs], train_images))
    train_pixels = {key: image for files in trained for key, image in files.pixels.items()}
    for key, image in other.pixels.items():
        if key in train_pixels:
            copies.setdefault(image, train_pixels[key])
    findings = []
    copies = {image: twin for image, twin in copies.items() if image not in named}
    if named:
        findings.append(fault(PART, 'an image of this name is in data.train too', way_out, named))
    if copies:
        twin = next(iter(copies.values()))
        findings.append(fault(PART, f'it is the same picture as {twin} in data.train', way_out,
                              list(copies)))
    return findings


def _stem(path: str) -> str:
    return osp.splitext(osp.basename(path))[0]


def _same_content(paths: Iterable[str], others: Iterable[str] | None = None
                  ) -> list[tuple[str, str]]:
    """Finds (path, other path of the same content); only files of one size are read."""
    known = defaultdict(list)
    for path in others if others is not None else paths:
        if osp.isfile(path):
            known[os.path.getsize(path)].append(path)
    pairs, digests = [], {}

    def digest(path: str) -> str:
        if path not in digests:
            digests[path] = images.digest(path)
        return digests[path]

    for path in paths:
        alike = known.get(os.path.getsize(path), []) if osp.isfile(path) else []
        for other in alike:
            if other == path:
                if others is None:
                    break  # those behind it have been or will be compared with this one
                continue
            if os.path.getsize(path) and digest(path) == digest(other):
                pairs.append((path, other))
                break
    return pairs


def _check_pipelines(cfg: Config, names: list[str]) -> list[Finding]:
    """Takes a sample of each data set through its own pipeline, and of those around it.

    The classes of those that can be built are compared, too.
    """
    findings = []
    built = {}
    for name in names:
        build = build_train_dataset if name == 'train' else build_test_dataset
        try:
            dataset = built[name] = build(cfg.data[name])
            for part in dict.fromkeys([*innermost_datasets(dataset), dataset]):
                part[0]
        except InputError as error:
            findings.append(_as_finding(name, error))
        except Exception as error:  # whatever a step raises, the pipeline is what does not work
            findings.append(fault(PART, f'its first sample fails: {words_of(error)}',
                                  'correct the pipeline', f'data.{name}.pipeline'))
    return findings + _check_classes(cfg, built)


def _check_classes(cfg: Config, built: Mapping[str, Dataset]) -> list[Finding]:
    """Compares what labels mean where they are trained on and where they are scored."""
    train, val = built.get('train'), built.get('val')
    try:
        lines = [] if train is None else check_joined_classes(train)
        lines += [line for name in ('val', 'test') if name in built
                  if (line := check_ignored(cfg, built[name], name)) is not None]
        if train is not None and val is not None:
            lines += filter(None, (check_scored_classes(train, val),
                                   check_label_numbers(train, val)))
    except ClassMismatch as error:
        return [fault(PART, error.difference, 'set classes in both alike')]
    return [warning(PART, line, 'correct classes, reduce_zero_label or ignore_index')
            for line in lines]
