"""The samples of a data set: which files of a folder are read, and what a list of names holds.

A sample is an image and, where there are labels, a label of the same name but for the suffix.
"""
import codecs
import os
import os.path as osp
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import InputError, some_of

ANY = 'any'  # value of a suffix: all usual ones, in any case
SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')  # usual ones, of images
DISK = dict(backend='disk')  # mmcv's client for files


@dataclass(frozen=True)
class Folder:
    """The files below a folder, as paths relative to it.

    Attributes:
        path: Path of the folder.
        files: Files that can be samples; hidden ones and those in hidden folders are not.
        hidden: The others.
        folders: Folders that are named like images.
    """
    path: str
    files: frozenset[str]
    hidden: frozenset[str]
    folders: frozenset[str] = frozenset()

    @classmethod
    def of(cls, path: str) -> 'Folder':
        """Lists a folder with all below it; one that does not exist is empty."""
        files: set[str] = set()
        hidden: set[str] = set()
        folders: set[str] = set()
        for parent, inner, names in os.walk(path, followlinks=True):
            inside = osp.relpath(parent, path)
            prefix = '' if inside == osp.curdir else inside + os.sep
            secret = any(part.startswith('.') for part in prefix.split(os.sep))
            for name in names:
                (hidden if secret or name.startswith('.') else files).add(prefix + name)
            folders.update(prefix + name for name in inner if name.lower().endswith(SUFFIXES))
        return cls(path, frozenset(files), frozenset(hidden), frozenset(folders))

    def with_suffix(self, suffix: str) -> dict[str, str]:
        """Lists the files that end in a suffix, or in any usual one for 'any'.

        Returns:
            Name without the suffix -> name.

        Raises:
            InputError: If 'any' finds two files of one name.
        """
        if suffix != ANY:
            return {name.removesuffix(suffix): name for name in self.files if name.endswith(suffix)}
        found: dict[str, str] = {}
        for name in sorted(self.files):
            stem, ending = osp.splitext(name)
            if ending.lower() in SUFFIXES:
                other = found.setdefault(stem, name)
                if other != name:
                    raise InputError(f'{self.path} holds both {other} and {name}, which suffix '
                                     f'{ANY!r} takes for the same: remove one of them, or set '
                                     'the suffix')
        return found


def read_lines(data: bytes) -> list[tuple[int, str]]:
    """Reads a list of names: (number of the line from 1 on, name).

    Blank lines, blanks around a name, a byte order mark and Windows' ends of line are no part of
    it.
    """
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    # Names that are not UTF-8 are read as the system gives those of files.
    text = data.decode('utf-16', 'replace') if wide else data.decode('utf-8-sig', 'surrogateescape')
    lines = enumerate(re.split(r'\r\n|\r|\n', text), 1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def list_samples(images: Folder, image_suffix: str, labels: Folder | None, label_suffix: str,
                 names: Iterable[tuple[int, str]] | None = None, source: str = '') -> list[dict]:
    """Lists the samples of a data set in mmseg's form.

    Args:
        images: Folder of the images.
        image_suffix: Suffix of the images, or 'any'.
        labels: Folder of the labels; None where there are none.
        label_suffix: Suffix of the labels, or 'any'.
        names: Names to read, with their lines, with or without suffix; None for all.
        source: File of the names, for messages.

    Returns:
        One dict for each sample: ``filename`` and, with labels, ``ann.seg_map``.

    Raises:
        InputError: If a name has no image; the message has its line.
    """
    if labels is not None and image_suffix == ANY and osp.realpath(labels.path) == osp.realpath(
            images.path):
        raise InputError(f'{images.path} is the folder of images and of labels: suffix {ANY!r} '
                         'would take labels for images; set img_suffix, or move the labels')
    by_stem = images.with_suffix(image_suffix)
    stems = sorted(by_stem, key=lambda stem: by_stem[stem]) if names is None else _resolve(
        names, by_stem, images.path, image_suffix, source)
    found: list[dict] = [dict(filename=by_stem[stem]) for stem in stems]
    if labels is not None:
        known = labels.with_suffix(label_suffix) if label_suffix == ANY else {}
        for info, stem in zip(found, stems):
            info['ann'] = dict(seg_map=known.get(stem) or stem + (
                '.png' if label_suffix == ANY else label_suffix))
    return found


def _resolve(names: Iterable[tuple[int, str]], by_stem: Mapping[str, str], folder: str,
             suffix: str, source: str) -> list[str]:
    """Returns the names without suffix."""
    stems, missing = [], []
    for line, name in names:
        plain = osp.normpath(name.replace('\\', '/'))
        if osp.isabs(plain):
            plain = osp.relpath(plain, osp.abspath(folder))
        stems_of = [name, plain, plain.removesuffix(suffix)]
        if plain.lower().endswith(SUFFIXES):
            stems_of.append(osp.splitext(plain)[0])
        stem = next((stem for stem in stems_of if stem in by_stem), None)
        if stem is None:
            missing.append((line, plain))
        else:
            stems.append(stem)
    if missing:
        line, name = missing[0]
        ending = '' if suffix == ANY or name.endswith(suffix) else suffix
        raise InputError(
            f'image {osp.join(folder, name + ending)} does not exist, but {source} lists it in '
            f'line {line} ({len(missing)} of {len(stems) + len(missing)} are missing); add it or '
            'correct the list')
    return stems


def check_pairs(infos: Sequence[Mapping], label_folder: str) -> None:
    """Checks that each sample has its label.

    Args:
        infos: Samples in mmseg's form, with ``ann.seg_map``.
        label_folder: Folder of the labels.

    Raises:
        InputError: Naming the first that has none, and a file of its name with another suffix.
    """
    folder = Folder.of(label_folder)
    present = folder.files | folder.hidden
    missing = [info for info in infos if info['ann']['seg_map'] not in present]
    if not missing:
        return
    wanted = missing[0]['ann']['seg_map']
    near = next((name for name in sorted(present)
                 if osp.splitext(name)[0] == osp.splitext(wanted)[0]), None)
    raise InputError(
        f'image {missing[0]["filename"]} has no label: expected {osp.join(label_folder, wanted)} '
        f'({len(missing)} of {len(infos)} images have none); '
        + (f'there is {near}, which data.*.seg_map_suffix={ANY!r} reads' if near else
           'add the label or remove the image'))


def unread(images: Folder, image_suffix: str, read: Iterable[str],
           label_suffix: str | None = None) -> tuple[str | None, str | None]:
    """Says which files of an image folder are not read, and why.

    Args:
        images: Folder of the images.
        image_suffix: Suffix of the images, or 'any'.
        read: Names that are read.
        label_suffix: Suffix of labels in the same folder, which are not spoken of.

    Returns:
        Text about images with another suffix, and about what is no image; None for nothing.
    """
    read = set(read)
    by_ending: dict[str, list[str]] = defaultdict(list)
    strange, lost = [], []
    for name in sorted(images.files.difference(read)):
        ending = osp.splitext(name)[1]
        if label_suffix is not None and name.endswith(label_suffix):
            continue
        if name.endswith(image_suffix):
            lost.append(name)
        elif ending.lower() in SUFFIXES:
            by_ending[ending].append(name)
        else:
            strange.append(name)
    others = ', '.join(f'{len(names)} in {ending} ({some_of(names)})'
                       for ending, names in sorted(by_ending.items()))
    hidden = sorted(images.hidden.difference(read))
    rest = [f'{len(names)} {what} ({some_of(names)})' for what, names in
            (('hidden', hidden), ('no image by the suffix', strange),
             ('a link to nothing', lost),
             ('a folder with the name of an image', sorted(images.folders))) if names]
    return others or None, ', '.join(rest) or None
