"""Writes the demo set to disk, in ADE20K's layout, and keeps it consistent.

    OUT/ADEChallengeData2016/
        demo.json                                   what is here, see `DemoManifest`
        images/{training,validation}/ADE_{train,val}_00000001.jpg
        annotations/{training,validation}/ADE_{train,val}_00000001.png

`demo.json` says `complete: false` while images are drawn, so that a set that was cut short is
recognised; and a folder with images but without it is never written to: it may be the real ADE20K.
"""
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mmseg.utils import get_root_logger
from PIL import Image

from mmseg_custom.errors import InputError
from mmseg_custom.files import SaveError, atomic_write
from mmseg_custom.progress import progress_bar

from .scene import draw_scene

GENERATOR = 1  # raise it with every change of what is drawn: sets of another version are redrawn
FOLDER = 'ADEChallengeData2016'
SPLITS = (('training', 'train'), ('validation', 'val'))
JPEG_QUALITY = 92

Task = tuple[str, str, int, int, int]  # folder, name without suffix, seed, split, index


@dataclass(frozen=True)
class DemoManifest:
    """Content of a folder.

    Attributes:
        generator: Version of the drawing code.
        seed: Seed of the whole set.
        train: Number of training images.
        val: Number of validation images.
        complete: Whether all of them were written.
    """
    generator: int
    seed: int
    train: int
    val: int
    complete: bool


def make_demo_data(out: str, train: int, val: int, seed: int, force: bool = False) -> str:
    """Draws the demo set, or what is missing of it.

    Args:
        out: Folder that the set's folder is made in.
        train: Number of training images, 1 or more.
        val: Number of validation images, 1 or more.
        seed: 0 or more; the same seed gives the same bytes.
        force: Draw everything anew, and remove the images of a larger set.

    Returns:
        The set's folder, for `data_root`.

    Raises:
        InputError: If a number is out of range, if the folder holds another set, or if it cannot
            be written.
    """
    for name, value, least in (('--train', train, 1), ('--val', val, 1), ('--seed', seed, 0)):
        if value < least:
            raise InputError(f'{name} {value}: expected {least} or more')
    root = Path(out) / FOLDER
    wanted = DemoManifest(GENERATOR, seed, train, val, True)
    logger = get_root_logger()
    try:
        found = _read_manifest(root)
        keep = found is not None and not force and _same_pictures(found, wanted, root)
        missing = [task for task in _tasks(wanted) if not keep or not _is_drawn(root, *task[:2])]
        if keep and not missing and found == wanted:
            logger.info('the demo data is there already: %s', root)
            return str(root)
        _remove_others(root, _tasks(wanted) if keep else ())
        _draw_all(root, wanted, missing)
    except SaveError as error:
        raise InputError(f'{error}; choose another folder with --out') from error
    except OSError as error:
        raise InputError(f'{error.filename or root} cannot be written: '
                         f'{error.strerror or error}; choose another folder with --out') from error
    logger.info('drew %d of %d images: %s', len(missing), train + val, root)
    return str(root)


def _read_manifest(root: Path) -> DemoManifest | None:
    """Reads the manifest of a folder; None for a folder without images."""
    path = root / 'demo.json'
    try:
        return DemoManifest(**json.loads(path.read_text()))
    except FileNotFoundError:
        if any(root.glob('images/*/*')):
            raise InputError(f'{root} holds images that this tool did not draw (there is no '
                             f'{path.name}): choose another folder with --out') from None
        return None
    except (ValueError, TypeError):
        raise InputError(f'{path} is damaged: remove {root}, or choose another folder with '
                         '--out') from None


def _same_pictures(found: DemoManifest, wanted: DemoManifest, root: Path) -> bool:
    """Tells whether the images of `found` are part of `wanted`."""
    if found.generator != wanted.generator:
        return False
    if found.seed != wanted.seed:
        raise InputError(f'{root} was drawn with --seed {found.seed}, not {wanted.seed}: draw it '
                         'anew with --force, or choose another folder with --out')
    if found.train > wanted.train or found.val > wanted.val:
        raise InputError(f'{root} holds {found.train} + {found.val} images, more than the '
                         f'{wanted.train} + {wanted.val} asked for: draw it anew with --force, or '
                         'choose another folder with --out')
    return True


def _tasks(manifest: DemoManifest) -> Iterator[Task]:
    for number, (folder, short) in enumerate(SPLITS):
        for index in range(getattr(manifest, short)):
            yield folder, f'ADE_{short}_{index + 1:08d}', manifest.seed, number, index


def _paths(root: Path, folder: str, name: str) -> tuple[Path, Path]:
    return root / 'images' / folder / f'{name}.jpg', root / 'annotations' / folder / f'{name}.png'


def _is_drawn(root: Path, folder: str, name: str) -> bool:
    return all(path.is_file() for path in _paths(root, folder, name))


def _remove_others(root: Path, tasks: Iterable[Task]) -> None:
    """Removes all images but those of `tasks`, and what a killed run left half written.

    This comes before the manifest names another seed: no picture is ever taken for one of that.
    """
    keep = {path for task in tasks for path in _paths(root, *task[:2])}
    for path in root.glob('*/*/ADE_*'):
        if path not in keep:
            path.unlink()


def _draw_all(root: Path, wanted: DemoManifest, tasks: list[Task]) -> None:
    for kind in ('images', 'annotations'):
        for folder, _ in SPLITS:
            (root / kind / folder).mkdir(parents=True, exist_ok=True)
    _write_manifest(root, wanted, complete=False)
    with progress_bar(len(tasks), 'image', 'drawing') as bar:
        for folder, name, *what in tasks:
            _draw_one(*_paths(root, folder, name), *what)
            bar.update()
    _write_manifest(root, wanted, complete=True)


def _draw_one(image_path: Path, label_path: Path, seed: int, split: int, index: int) -> None:
    image, labels = draw_scene(seed, split, index)
    _write_image(label_path, Image.fromarray(labels), format='PNG')
    _write_image(image_path, Image.fromarray(image), format='JPEG', quality=JPEG_QUALITY)


def _write_image(path: Path, image: Image.Image, **options) -> None:
    data = io.BytesIO()
    image.save(data, **options)
    atomic_write(path, data.getvalue())


def _write_manifest(root: Path, manifest: DemoManifest, complete: bool) -> None:
    content = {**asdict(manifest), 'complete': complete}
    atomic_write(root / 'demo.json', (json.dumps(content, indent=2) + '\n').encode())
