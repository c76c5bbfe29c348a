"""The records of all images in arrays, and the .npz file of a test run that holds them.

Everything but the boundary follows from the entries, pairs of a true and a predicted class.
Letters: `N` images, `K` classes, `E` entries of all images, `e` entries of one image.
"""
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..errors import InputError
from ..files import atomic_path
from .bootstrap import iou
from .record import ImageRecord, decode_maps

_IN_FILE = dict(ground_truth='truth')  # attribute -> array, where the names differ
UNREADABLE = (OSError, ValueError, KeyError, EOFError, MemoryError, OverflowError, RuntimeError,
              zipfile.BadZipFile, zlib.error)  # what numpy and zipfile raise of a damaged file
_MOST_PIXELS = 2 ** 53  # what float64 counts exactly


@dataclass
class PerImage:
    """Contribution of each image to the metrics.

    The arrays have the same names in the file, except that ``ground_truth`` is ``truth`` there.

    Attributes:
        names: File names of the images (N,).
        ends: End of the entries of each image (N,).
        ground_truth: True class of each entry (E,); K for a label that is no class.
        prediction: Predicted class of each entry (E,).
        pixels: Number of pixels of each entry (E,).
        boundary: Results of :func:`.boundary.boundary_areas` (N, 3, K); (0, 3, 0) if not measured.
        maps: Bytes of the PNG files of all images in a row, see :func:`.record.decode_maps`.
        map_ends: End of the PNG file of each image (N,).
    """
    names: np.ndarray
    ends: np.ndarray
    ground_truth: np.ndarray
    prediction: np.ndarray
    pixels: np.ndarray
    boundary: np.ndarray
    maps: np.ndarray
    map_ends: np.ndarray

    @classmethod
    def of(cls, records: Sequence[ImageRecord]) -> 'PerImage':
        """Concatenates the records of images."""
        pairs = np.concatenate([record.pairs for record in records])
        boundary = [record.boundary for record in records if record.boundary is not None]
        return cls(
            names=np.array([record.name for record in records]),
            ends=np.cumsum([len(record.pairs) for record in records]),
            ground_truth=pairs[:, 0].astype(np.uint16),
            prediction=pairs[:, 1].astype(np.uint16),
            pixels=np.concatenate([record.pixels for record in records]),
            boundary=np.stack(boundary) if len(boundary) == len(records) else
            np.zeros((0, 3, 0), np.int64),
            maps=np.frombuffer(b''.join(record.maps for record in records), np.uint8),
            map_ends=np.cumsum([len(record.maps) for record in records]))

    def save(self, path: str) -> None:
        """Writes the file atomically."""
        with atomic_path(path) as part, open(part, 'wb') as file:
            np.savez_compressed(file, **{_IN_FILE.get(name, name): array
                                         for name, array in asdict(self).items()})

    @classmethod
    def load(cls, path: str) -> 'PerImage':
        """Reads the file.

        Raises:
            InputError: If it is missing, cut short or another kind of file.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**{name: arrays[_IN_FILE.get(name, name)]
                              for name in cls.__dataclass_fields__})
        except FileNotFoundError as error:
            raise InputError(f'{path} does not exist: it lies beside the .json of a test run, and '
                             'moves with it') from error
        except UNREADABLE as error:
            reason = getattr(error, 'strerror', None) or ' '.join(str(error).split())
            raise InputError(f'{path} cannot be read ({reason}): run tools/test.py '
                             'again') from error

    def check(self, path: str, classes: int) -> None:
        """Checks that the arrays fit each other.

        Args:
            path: Path of the file, for the message.
            classes: Number of classes K.

        Raises:
            InputError: If they do not.
        """
        images, entries = self.ends.size, self.pixels.size
        shapes = {**dict.fromkeys(('names', 'ends', 'map_ends'), (images,)),
                  **dict.fromkeys(('ground_truth', 'prediction', 'pixels'), (entries,)),
                  'maps': (self.maps.size,),
                  'boundary': (images, 3, classes) if self.boundary.size else (0, 3, 0)}
        kinds = {'names': 'U', 'maps': 'u'}
        for name, shape in shapes.items():
            found = getattr(self, name)
            if found.shape != shape or found.dtype.kind not in kinds.get(name, 'iu'):
                raise InputError(f'{path}: {_IN_FILE.get(name, name)} is {found.dtype} '
                                 f'{found.shape}, expected {shape}: run tools/test.py again')
        limits = dict(ends=(0, entries), map_ends=(0, len(self.maps)), pixels=(0, _MOST_PIXELS),
                      ground_truth=(0, classes), prediction=(0, classes - 1),
                      boundary=(0, _MOST_PIXELS))
        for name, (low, high) in limits.items():
            found = getattr(self, name)
            if found.size and (found.min() < low or found.max() > high
                               or name.endswith('ends') and (np.diff(found) < 0).any()):
                raise InputError(f'{path}: {_IN_FILE.get(name, name)} does not fit the other '
                                 'arrays and the classes: run tools/test.py again')
        if images and (self.ends[-1], self.map_ends[-1]) != (entries, len(self.maps)):
            raise InputError(f'{path} lacks part of its images: run tools/test.py again')

    def areas(self, classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Computes intersection and union (N, K) in pixels, float64."""
        hit = self.ground_truth == self.prediction
        intersect = self._sums(self.ground_truth, classes, hit)
        union = (self._sums(self.prediction, classes) + self.ground_truth_areas(classes)
                 - intersect)
        return intersect, union

    def ground_truth_areas(self, classes: int) -> np.ndarray:
        """Computes the labelled pixels of each class (N, K), float64."""
        return self._sums(self.ground_truth, classes, self.ground_truth < classes)

    def boundary_iou(self) -> np.ndarray | None:
        """Computes the Boundary IoU of each class (K,); None if it was not measured."""
        if not len(self.boundary):
            return None
        intersect, of_prediction, of_ground_truth = self.boundary.sum(0)
        return iou(intersect, of_prediction + of_ground_truth - intersect)

    def confusion(self, classes: int) -> np.ndarray:
        """Counts the pixels (K, K) of all images: true class, predicted class."""
        kept = self.ground_truth < classes
        cells = self.ground_truth[kept].astype(np.int64) * classes + self.prediction[kept]
        return np.bincount(cells, self.pixels[kept], classes**2).reshape(classes, classes)

    def entries(self, image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns true class, predicted class and pixels, (e,) each, of one image."""
        part = slice(self.ends[image - 1] if image else 0, self.ends[image])
        return self.ground_truth[part], self.prediction[part], self.pixels[part]

    def label_maps(self, image: int) -> tuple[np.ndarray, np.ndarray]:
        """Decodes ground truth and prediction of one image, see :func:`.record.decode_maps`."""
        start = self.map_ends[image - 1] if image else 0
        return decode_maps(self.maps[start:self.map_ends[image]].tobytes())

    def _sums(self, labels: np.ndarray, classes: int,
              kept: np.ndarray | None = None) -> np.ndarray:
        """Sums pixels by image and label (N, K)."""
        images = np.repeat(np.arange(len(self.ends)), np.diff(self.ends, prepend=0))
        cells, pixels = images * classes + labels, self.pixels
        if kept is not None:
            cells, pixels = cells[kept], pixels[kept]
        return np.bincount(cells, pixels, len(self.ends) * classes).reshape(-1, classes)
