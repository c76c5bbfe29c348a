"""Counts, pairs and samples of a data set that lies in its folders."""
import os
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import mmcv

from ..faults import FAULT, Problem, check_name
from ..listing import ANY, Folder, read_lines
from ..workers import in_processes
from .layouts import DatasetLayout, SplitLayout
from .manifest import PreparedManifest
from .samples import SampleFiles, SampleReport, inspect


@dataclass
class VerificationReport:
    """What was found in a data set.

    Attributes:
        splits: Name -> number of samples.
        files: Path below the root -> (size in bytes, SHA-256).
        faults: Faults, one line each.
        notes: Kind -> notes, one line each.
    """
    splits: dict[str, int] = field(default_factory=dict)
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def verify(layout: DatasetLayout, root: Path, subset: bool, workers: int,
           before: PreparedManifest | None = None) -> VerificationReport:
    """Checks every file of a data set.

    Args:
        layout: Folders and counts to expect.
        root: Folder of the data set.
        subset: Whether to accept any number of samples.
        workers: Number of processes.
        before: Manifest of the last time; files that have not changed since are hashed and not
            decoded.
    """
    report = VerificationReport()
    pairs = []
    for split in layout.splits:
        samples = find_samples(layout, root, split, report)
        if split.optional and not samples:
            continue
        report.splits[split.name] = len(samples)
        if not subset:
            report.faults += count_faults(split, set(samples))
        pairs += [(f'{split.images}/{image}', f'{split.labels}/{stem}{layout.label_suffix}')
                  for stem, image in samples.items()]
    pairs = sorted(set(pairs))
    known = before.files if before else {}
    jobs = [SampleFiles(str(root / image), str(root / label), layout.last_label,
                        layout.zero_is_ignored, _known(known, (image, label)))
            for image, label in pairs]
    if jobs:
        for paths, found in zip(pairs, in_processes(inspect, jobs, workers, 'checking')):
            _add(report, paths, found, before, root)
    _note_twins(report, pairs)
    return report


def _known(files: dict, paths: tuple[str, str]) -> tuple:
    entries = [files[path][1] for path in paths if path in files]
    return tuple(entries) if len(entries) == 2 else ()


def _add(report: VerificationReport, paths: tuple[str, str], found: SampleReport,
         before: PreparedManifest | None, root: Path) -> None:
    report.files.update(zip(paths, found.files))
    report.faults += found.faults
    for kind, text in found.notes.items():
        report.notes[kind].append(text.replace(f'{root}{os.sep}', ''))
    if before is not None and not found.checked:
        for kind, lines in before.notes.items():
            report.notes[kind] += [line for line in lines if line.startswith(paths)
                                   and line not in report.notes[kind] and kind != 'twins']


def find_samples(layout: DatasetLayout, root: Path, split: SplitLayout,
                 report: VerificationReport) -> dict[str, str]:
    """Pairs the images and labels of a split.

    Returns:
        What the names of image and label have in common -> name of the image.
    """
    if split.listed:
        return {stem: stem + layout.image_suffix for stem in _listed(layout, root, split, report)}
    found = _images(root / split.images, layout.image_suffix)
    images, labels = set(found), _stems(root / split.labels, layout.label_suffix)
    normal = {unicodedata.normalize('NFC', name) for name in labels - images}
    for name in sorted(images - labels):
        twin = unicodedata.normalize('NFC', name) in normal
        why = ('its label spells the same name in other bytes (Unicode NFC and NFD): rename one of '
               'them' if twin else
               f'expected {root / split.labels / (name + layout.label_suffix)}; add it or remove '
               'the image')
        report.faults.append(f'image {root / split.images / found[name]} has no label: {why}')
    for name in sorted(labels - images):
        report.faults.append(f'label {root / split.labels / (name + layout.label_suffix)} has no '
                             'image: add it or remove the label')
    for name in sorted(images):
        _add_name(report, root, f'{split.images}/{found[name]}', check_name(name))
    return {stem: found[stem] for stem in sorted(images & labels)}


def _add_name(report: VerificationReport, root: Path, path: str, problem: Problem | None) -> None:
    plain = os.fsencode(path).decode(errors='replace')
    if problem is not None and problem.level == FAULT:
        report.faults.append(f'image {root / plain} {problem}')
    elif problem is not None:
        report.notes[problem.kind].append(f'{plain} {problem.message}')


def _listed(layout: DatasetLayout, root: Path, split: SplitLayout,
            report: VerificationReport) -> list[str]:
    try:
        lines = [name for _, name in read_lines((root / split.listed).read_bytes())]
    except FileNotFoundError:
        if not split.optional:
            report.faults.append(f'{root / split.listed} is missing: it lists the samples of '
                                 f'{split.name}')
        return []
    found = []
    for name in sorted(set(lines)):
        paths = (root / split.images / (name + layout.image_suffix),
                 root / split.labels / (name + layout.label_suffix))
        missing = [path for path in paths if not path.is_file()]
        if missing:
            report.faults.append(f'{missing[0]} is missing, but {root / split.listed} lists it: '
                                 'add it or correct the list')
        else:
            found.append(name)
    return found


def _images(folder: Path, suffix: str) -> dict[str, str]:
    """Lists images: name without suffix -> name."""
    if suffix == ANY:
        return Folder.of(str(folder)).with_suffix(ANY)
    return {stem: stem + suffix for stem in _stems(folder, suffix)}


def _stems(folder: Path, suffix: str) -> set[str]:
    if not folder.is_dir():
        return set()
    return {name.removesuffix(suffix) for name in mmcv.scandir(str(folder), suffix, recursive=True)}


def count_faults(split: SplitLayout, stems: list[str] | set[str]) -> list[str]:
    """Compares the samples of a split with the published ones; returns no fault or one."""
    if len(stems) == split.count:
        return []
    text = f'{split.name} has {len(stems):,} samples: expected {split.count:,}'
    if split.number:
        names = {split.number.format(i) for i in range(1, split.count + 1)}
        missing, extra = sorted(names - set(stems)), sorted(set(stems) - names)
        text += ''.join(f'; {_first(some)} {verb}' for some, verb in
                        ((missing, 'missing'), (extra, 'not of the published set')) if some)
    return [f'{text}; fetch the archive again, or pass --subset if this is meant to be a part']


def _first(names: list[str]) -> str:
    more = f' and {len(names) - 1:,} more are' if len(names) > 1 else ' is'
    return f'{names[0]}{more}'


def _note_twins(report: VerificationReport, pairs: list[tuple[str, str]]) -> None:
    """Notes images that are there twice, which matters most across splits."""
    first: dict[str, str] = {}
    for image, _ in pairs:
        digest = report.files.get(image, (0, ''))[1]
        if digest and digest in first:
            report.notes['twins'].append(f'{first[digest]} = {image}')
        first.setdefault(digest, image)
