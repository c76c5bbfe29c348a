"""The data of a config: pairs, headers, pixels, label values, and leaks between the splits.

Every file is looked at by name and header; pixels are decoded of a random part where there are
more than fit into the time. What is asked of a label follows from the data set's own classes.
"""
import os
import os.path as osp
import random
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import mmcv
import numpy as np
from mmcv import Config
from mmseg.datasets import CustomDataset, build_dataset
from mmseg.datasets.builder import DATASETS

from ..errors import InputError
from . import images
from .findings import Finding, fault, warning
from .images import Header, Trouble

SPLITS = ('train', 'val', 'test')
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
PART = 'data'


@dataclass
class Split:
    """The files of one split.

    Attributes:
        name: 'train', 'val' or 'test'.
        dataset: Built without its own checks.
        pairs: (image, label) paths; the label is None where there is none to be.
        decoded: Pairs whose pixels were read.
        pixels: Digest of an image's pixels -> its path.
    """
    name: str
    dataset: CustomDataset
    pairs: list[tuple[str, str | None]]
    decoded: int = 0
    pixels: dict[str, str] = field(default_factory=dict)


def check_data(cfg: Config, seconds: float = 24) -> tuple[list[Finding], dict]:
    """Looks at the data of all splits.

    Args:
        cfg: The config.
        seconds: To spend at most, about.

    Returns:
        (findings, figures: images and decoded pairs by split).
    """
    findings: list[Finding] = []
    splits: list[Split] = []
    seen: list[dict] = []
    for name in SPLITS:
        options = cfg.data.get(name)
        if options is None or any(_same_files(options, other) for other in seen):
            continue
        if name != 'train':
            seen.append(options)
        try:
            splits.append(_open(name, _innermost(options)))
        except InputError as error:
            findings.append(_as_finding(name, error))
    for split in splits:
        findings += _check_names(split)
        findings += _check_files(split, seconds / len(splits))
    findings += _check_leaks(splits)
    if not any(f.level == 'fault' for f in findings):
        findings += _check_pipelines(cfg, splits)
    return findings, {s.name: dict(images=len(s.pairs), decoded=s.decoded) for s in splits}


def _innermost(options: dict) -> dict:
    """The data set inside of RepeatDataset and its like; the first of a list."""
    while isinstance(options, (list, tuple)) or 'dataset' in options:
        options = options[0] if isinstance(options, (list, tuple)) else options['dataset']
    return options


def _same_files(one: dict, other: dict) -> bool:
    keys = ('type', 'data_root', 'img_dir', 'ann_dir', 'split', 'description', 'part')
    return all(_innermost(one).get(key) == _innermost(other).get(key) for key in keys)


def _open(name: str, options: dict) -> Split:
    """Builds a data set that lists its files and checks none of them."""
    kind = DATASETS.get(options['type'])
    if kind is None:
        raise InputError(f'data.{name}.type={options["type"]!r} is no data set that is registered')
    unchecked = type(kind.__name__, (kind,), dict(_check_pairs=staticmethod(lambda *_: None)))
    arguments = {k: v for k, v in options.items() if k != 'type'}
    dataset = unchecked(**{**arguments, 'test_mode': name != 'train'})
    if not len(dataset):
        raise InputError(f'{dataset.img_dir} holds no {dataset.img_suffix} file')
    pairs = []
    for info in dataset.img_infos:
        label = osp.join(dataset.ann_dir, info['ann']['seg_map']) if dataset.ann_dir else None
        pairs.append((osp.join(dataset.img_dir, info['filename']), label))
    return Split(name, dataset, pairs)


def _as_finding(name: str, error: InputError) -> Finding:
    return fault(PART, f'data.{name}: {error}', 'until then nothing of this split is checked')


def _check_names(split: Split) -> list[Finding]:
    """Missing and left-over files, other suffixes, names that do not travel."""
    findings, dataset = [], split.dataset
    missing = [image for image, label in split.pairs if label and not osp.isfile(label)]
    if missing:
        findings.append(fault(
            PART, f'the image has no label in {dataset.ann_dir}',
            'add the label or remove the image', missing))
    if dataset.ann_dir and osp.isdir(dataset.ann_dir) and not dataset.split and (
            getattr(dataset, 'few_shot', None) is None):
        wanted = {label for _, label in split.pairs}
        left = [path for path in _files(dataset.ann_dir, dataset.seg_map_suffix)
                if path not in wanted]
        if left:
            findings.append(fault(PART, f'the label has no image in {dataset.img_dir}',
                                  'add the image or remove the label', left))
    others = [path for path in _files(dataset.img_dir, IMAGE_SUFFIXES)
              if not path.endswith(dataset.img_suffix)]
    if others:
        findings.append(fault(
            PART, f'it is not read: images of data.{split.name} end in {dataset.img_suffix}',
            'rename it, or set img_suffix', others))
    strange = defaultdict(list)
    for image, _ in split.pairs:
        found = images.check_name(osp.basename(image))
        if found:
            strange[found].append(image.encode('utf-8', 'backslashreplace').decode())
    for (level, trouble), paths in strange.items():
        make = fault if level == 'fault' else warning
        findings.append(make(PART, trouble.message, trouble.way_out, paths))
    return findings


def _files(folder: str, suffix: str | tuple) -> list[str]:
    return [osp.join(folder, name) for name in sorted(mmcv.scandir(
        folder, suffix, recursive=True, case_sensitive=False))]


def _check_files(split: Split, seconds: float) -> list[Finding]:
    """Headers of all files, pixels of a random part; the same kind of fault is one finding."""
    troubles: dict[Trouble, list[str]] = defaultdict(list)
    order = list(split.pairs)
    random.Random(0).shuffle(order)
    end = time.monotonic() + seconds
    headers_end = time.monotonic() + seconds / 2
    sound = []
    for image, label in order:
        if time.monotonic() > headers_end:
            break
        ok = _check_headers(image, label, troubles)
        if ok:
            sound.append((image, label))
    for image, label in sound:
        if time.monotonic() > end:
            break
        _check_pixels(split, image, label, troubles)
        split.decoded += 1
    return [fault(PART, trouble.message, trouble.way_out, sorted(paths))
            for trouble, paths in troubles.items()]


def _check_headers(image: str, label: str | None, troubles: dict) -> bool:
    headers = [_look(image, images.check_image, troubles)]
    if label is not None and osp.isfile(label):
        headers.append(_look(label, images.check_label, troubles))
    if None in headers:
        return False
    if len(headers) == 2 and headers[0].size != headers[1].size:
        sizes = ['{}x{}'.format(*header.size) for header in headers]
        troubles[Trouble(f'it has {sizes[0]} pixels, its label {sizes[1]}',
                         'replace the one that is wrong')].append(image)
        return False
    return True


def _look(path: str, check, troubles: dict) -> Header | None:
    found = images.read_header(path)
    if isinstance(found, Header):
        trouble = check(found)
        if trouble is None:
            return found
        found = trouble
    troubles[found].append(path)
    return None


def _check_pixels(split: Split, image: str, label: str | None, troubles: dict) -> None:
    pixels = images.decode(image)
    if isinstance(pixels, Trouble):
        troubles[pixels].append(image)
        return
    split.pixels[f'{pixels.shape}{hash(pixels.tobytes())}'] = image
    if label is None or not osp.isfile(label):
        return
    labels = images.decode(label)
    if isinstance(labels, np.ndarray) and split.dataset.label_map is None:
        labels = images.check_values(labels, len(split.dataset.CLASSES),
                                     bool(split.dataset.reduce_zero_label))
    if isinstance(labels, Trouble):
        troubles[labels].append(label)


def _check_leaks(splits: list[Split]) -> list[Finding]:
    """Images that are trained on and tested on: by name, by bytes, by pixels."""
    findings = []
    trained = next((s for s in splits if s.name == 'train'), None)
    for other in splits:
        if trained is None or other is trained:
            continue
        if osp.realpath(trained.dataset.img_dir) == osp.realpath(other.dataset.img_dir) and not (
                trained.dataset.split or other.dataset.split):
            findings.append(fault(
                PART, f'data.train and data.{other.name} read the same folder',
                f'set data.{other.name}.img_dir and ann_dir', trained.dataset.img_dir))
            continue
        findings += _leaks(trained, other)
    for split in splits:
        twice = [pair for pair in _same_bytes(
            [image for image, _ in split.pairs]) if pair[0] != pair[1]]
        if twice:
            findings.append(warning(
                PART, f'it has the same content as {osp.basename(twice[0][1])}, also in '
                f'data.{split.name}', 'remove one of them', [first for first, _ in twice]))
    return findings


def _leaks(trained: Split, other: Split) -> list[Finding]:
    way_out = f'remove it from data.train or data.{other.name}'
    stems = {_stem(image): image for image, _ in trained.pairs}
    named = [image for image, _ in other.pairs if _stem(image) in stems]
    copies = {image: twin for image, twin in _same_bytes(
        [image for image, _ in other.pairs], [image for image, _ in trained.pairs])}
    for key, image in other.pixels.items():
        if key in trained.pixels:
            copies.setdefault(image, trained.pixels[key])
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


def _same_bytes(paths: Iterable[str], others: Iterable[str] | None = None
                ) -> list[tuple[str, str]]:
    """(path, other of the same content); only files of one size are read."""
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
                    break  # what comes after has been or will be compared with this one
                continue
            if os.path.getsize(path) and digest(path) == digest(other):
                pairs.append((path, other))
                break
    return pairs


def _check_pipelines(cfg: Config, splits: list[Split]) -> list[Finding]:
    """Takes a sample of each split through its own pipeline."""
    findings = []
    for split in splits:
        try:
            build_dataset(cfg.data[split.name], dict(test_mode=split.name != 'train'))[0]
        except InputError as error:
            findings.append(_as_finding(split.name, error))
        except Exception as error:  # whatever a step raises, the pipeline is what does not work
            findings.append(fault(PART, f'its first sample fails: {error!r}',
                                  'correct the pipeline', f'data.{split.name}.pipeline'))
    return findings
