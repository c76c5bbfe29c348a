"""The steps of preparing a data set, in their order.

1. Open and check the archives. Nothing is written before this.
2. Plan: find the members that are needed, and check that the data set will be complete.
3. Unpack what is missing.
4. Convert labels that are trained on in another form than they are published.
5. Verify every sample.
6. Write the manifest, or the list of faults.
"""
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mmseg.utils import get_root_logger

from ...errors import InputError, some_of
from ...files import atomic_write
from ..description import read_description
from . import convert
from .archive import Source, open_source
from .coloured import make_labels
from .layouts import LAYOUTS, DatasetLayout, SplitLayout
from .manifest import PreparedManifest, faults_path, manifest_path, read_manifest, write_manifest
from .unpack import ExtractionPlan, unpack
from .verify import VerificationReport, count_faults, verify

LOCK = '.prepare.lock'
SHOWN = 10  # faults on the screen; all are in the file


@dataclass(frozen=True)
class PrepareOptions:
    """Options of the command line.

    Attributes:
        out: Folder to prepare the data set in; default: the layout's.
        subset: Whether to accept any number of samples.
        link: Whether to link to the files of folders instead of copying them.
        workers: Number of processes that convert and verify.
    """
    out: str | None = None
    subset: bool = False
    link: bool = False
    workers: int = 1


def prepare(name: str, paths: Sequence[str], options: PrepareOptions) -> PreparedManifest:
    """Prepares a data set; one that was stopped is resumed.

    Args:
        name: Name of a layout.
        paths: Archives, or folders they were unpacked to; those that were given before may be left
            out.
        options: Options of the command line.

    Returns:
        The manifest, which has been written as well.

    Raises:
        InputError: If an archive is damaged or another one, the target cannot be written, or a
            sample has a fault. All faults are listed in ``OUT/NAME.faults.txt``.
    """
    layout = LAYOUTS[name]
    out = Path(options.out or layout.out)
    root = out / layout.root
    logger = get_root_logger()
    in_place = [path for path in paths if _is_root(path, root)]
    sources = [open_source(path) for path in paths if path not in in_place]
    plans = plan(layout, sources)
    if not options.subset:
        _check_whole(layout, root, plans)
    if layout.converter:
        convert.require(layout, [path for one in plans for path in one.targets.values()])
    with _locked(out):
        before = read_manifest(manifest_path(out, layout))
        logger.info('%s: unpacking into %s', layout.title, root)
        written = unpack(plans, root, options.link)
        if layout.converter:
            written += convert.labels(layout, root, options.workers)
        logger.info('%d files written; what was there already was left alone', written)
        report = verify(layout, root, options.subset, options.workers, before)
        return _conclude(layout, out, options, report)


def prepare_own(path: str, options: PrepareOptions) -> PreparedManifest:
    """Prepares one's own data set in place: converts labels in colours, and verifies.

    Args:
        path: Path of the YAML file that describes it.
        options: Options of the command line; all but ``workers`` are ignored.

    Returns:
        The manifest, which has been written beside the file.

    Raises:
        InputError: If the description or a sample has a fault.
    """
    description = read_description(path)
    out = description.path.parent
    splits = tuple(SplitLayout(name, 0, os.path.relpath(part.images, out),
                               os.path.relpath(part.labels, out))
                   for name, part in description.parts.items() if part.labels is not None)
    layout = DatasetLayout(
        description.path.stem, path, str(out), '.', splits, (), len(description.classes) - 1,
        image_suffix=description.image_suffix, label_suffix=description.label_suffix)
    options = replace(options, out=None, subset=True)
    with _locked(out):
        before = read_manifest(manifest_path(out, layout))
        made = make_labels(description, options.workers)
        if made:
            get_root_logger().info('%d labels converted from colours', made)
        return _conclude(layout, out, options, verify(layout, out, True, options.workers, before))


def _is_root(path: str, root: Path) -> bool:
    """Tells whether a path is the target itself, also by another name or a link."""
    return root.is_dir() and os.path.isdir(path) and os.path.samefile(path, root)


def plan(layout: DatasetLayout, sources: Sequence[Source]) -> list[ExtractionPlan]:
    """Finds the members that are needed, and their paths below the root.

    Raises:
        InputError: If a source has no member that is needed.
    """
    plans = []
    for source in sources:
        paths = {member.name: layout.target_of(member.name) for member in source.members}
        targets = {name: path for name, path in paths.items() if path is not None}
        if not targets:
            raise source.error(f'is not {layout.title}: {_describe(source)}; expected '
                               f'{_wanted(layout)}')
        plans.append(ExtractionPlan(source, targets))
    return plans


def _describe(source: Source) -> str:
    """Describes the content of a source, for a message."""
    names = [member.name for member in source.members]
    for layout in LAYOUTS.values():
        if sum(layout.target_of(name) is not None for name in names) > len(names) // 2:
            return (f'it looks like {layout.title}, which `prepare_data.py {layout.name}` '
                    'takes')
    if not names:
        return 'it is empty'
    if any(name.startswith(('ADE20K_20', 'ADE20K/')) for name in names):
        return 'it is the full ADE20K of thousands of classes'
    tops = sorted({name.split('/')[0] for name in names})
    return f'it holds {len(names):,} files in {some_of(tops)} (such as {names[0]})'


def _wanted(layout: DatasetLayout) -> str:
    needed = [archive for archive in layout.archives if not archive.optional]
    return ' and '.join(f'{archive.name} ({archive.url})' for archive in needed)


def _check_whole(layout: DatasetLayout, root: Path, plans: Sequence[ExtractionPlan]) -> None:
    """Refuses a data set that would not be complete, before it is unpacked."""
    coming = {place for one in plans for place in one.targets.values()}
    for split in layout.splits:
        if split.listed:
            continue
        there = {os.path.relpath(path, root) for path in
                 (root / split.images).rglob(f'*{layout.image_suffix}')}
        stems = {path.removeprefix(f'{split.images}/').removesuffix(layout.image_suffix)
                 for path in coming | there
                 if path.startswith(f'{split.images}/') and path.endswith(layout.image_suffix)}
        faults = count_faults(split, stems)
        if faults:
            needs = '' if stems else f'; {layout.title} needs {_wanted(layout)}'
            raise InputError(faults[0] + needs)


def _conclude(layout: DatasetLayout, out: Path, options: PrepareOptions,
              report: VerificationReport) -> PreparedManifest:
    logger = get_root_logger()
    listing, path = faults_path(out, layout), manifest_path(out, layout)
    for kind, lines in report.notes.items():
        if lines:
            logger.warning('%s: %d, such as %s', kind, len(lines), _printable(lines[0]))
    if not sum(report.splits.values()):
        wanted = f': give {_wanted(layout)}' if layout.archives else ''
        report.faults.append(f'{out / layout.root} holds no sample, of an image ending in '
                             f'{layout.image_suffix} and a label in {layout.label_suffix}{wanted}')
    if report.faults:
        faults = [_printable(line) for line in report.faults]
        atomic_write(listing, ''.join(f'{line}\n' for line in faults))
        path.unlink(missing_ok=True)
        for line in faults[:SHOWN]:
            logger.error('%s', line)
        many = '1 fault' if len(faults) == 1 else f'{len(faults):,} faults'
        raise InputError(f'{many}, listed in {listing}: correct the files, then check them with '
                         f'`{_check_command(layout, out, options)}`')
    manifest = PreparedManifest(layout.name, layout.root, report.splits, report.files,
                                {kind: lines for kind, lines in report.notes.items() if lines})
    write_manifest(path, manifest)
    listing.unlink(missing_ok=True)
    counts = ', '.join(f'{count:,} {name}' for name, count in manifest.splits.items())
    logger.info('%s is ready: %s; SHA-256 %s; %s', layout.title, counts, manifest.sha256, path)
    return manifest


def _check_command(layout: DatasetLayout, out: Path, options: PrepareOptions) -> str:
    """Returns the command that verifies a data set in place."""
    if not layout.archives:
        return f'python tools/prepare_data.py custom {layout.title}'
    where = f' --out {out}' if options.out else ''
    return (f'python tools/prepare_data.py {layout.name} {out / layout.root}{where}'
            f'{" --subset" * options.subset}')


def _printable(text: str) -> str:
    return text.encode(errors='replace').decode()


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Locks the folder against a second run.

    The kernel releases a record lock when the run ends, however it ends, and forked workers, which
    outlive a killed run for a moment, do not hold it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = open(out / LOCK, 'w')
    except OSError as error:
        raise InputError(f'{error.filename}: {error.strerror}; choose another folder with '
                         '--out') from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise InputError(f'{out} is being prepared by another process: wait for its '
                             'end') from error
        yield
