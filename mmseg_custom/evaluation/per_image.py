"""The records of all images in arrays, and the .npz file of a test run that holds them.

    names       (N,) the files of the images
    ends        (N,) where the entries of an image end
    truth       (E,) true class of an entry; K for a label that is no class
    prediction  (E,) predicted class
    pixels      (E,) how many pixels of the image are of this pair
    boundary    (N, 3, K) see boundary.boundary_areas; (0, 3, 0) where it was not measured
    maps        bytes of one PNG an image after the other, see record.decode_maps
    map_ends    (N,) where they end

Everything but the boundary follows from the entries. Letters: `N` images, `K` classes, `E` entries
of all images, `e` of one.
"""
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..errors import InputError
from ..files import atomic_path
from .record import ImageRecord, decode_maps


@dataclass
class PerImage:
    """What each image adds to the figures; the arrays are those of the file."""
    names: np.ndarray
    ends: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    pixels: np.ndarray
    boundary: np.ndarray
    maps: np.ndarray
    map_ends: np.ndarray

    @classmethod
    def of(cls, records: Sequence[ImageRecord]) -> 'PerImage':
        """Lays the records of images one after another."""
        pairs = np.concatenate([record.pairs for record in records])
        measured = all(record.boundary is not None for record in records)
        return cls(
            names=np.array([record.name for record in records]),
            ends=np.cumsum([len(record.pairs) for record in records]),
            truth=pairs[:, 0].astype(np.uint16), prediction=pairs[:, 1].astype(np.uint16),
            pixels=np.concatenate([record.pixels for record in records]),
            boundary=np.stack([record.boundary for record in records]) if measured else
            np.zeros((0, 3, 0), np.int64),
            maps=np.frombuffer(b''.join(record.maps for record in records), np.uint8),
            map_ends=np.cumsum([len(record.maps) for record in records]))

    def save(self, path: str) -> None:
        """Writes the file, whole or not at all."""
        with atomic_path(path) as part, open(part, 'wb') as file:
            np.savez_compressed(file, **asdict(self))

    @classmethod
    def load(cls, path: str) -> 'PerImage':
        """Reads the file.

        Raises:
            InputError: If it is missing, cut short or another kind of file.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})
        except FileNotFoundError as error:
            raise InputError(f'{path} does not exist: it lies beside the .json of a test run, and '
                             'moves with it') from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f'{path} cannot be read ({error}): run tools/test.py '
                             'again') from error

    def areas(self, classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Intersection and union (N, K) in pixels, float64."""
        hit = self.truth == self.prediction
        intersect = self._sums(self.truth, classes, hit)
        union = (self._sums(self.prediction, classes) + self.truth_areas(classes) - intersect)
        return intersect, union

    def truth_areas(self, classes: int) -> np.ndarray:
        """Labelled pixels of each class (N, K), float64."""
        return self._sums(self.truth, classes, self.truth < classes)

    def confusion(self, classes: int) -> np.ndarray:
        """Pixels (K, K) of all images: true class, predicted class."""
        kept = self.truth < classes
        cells = self.truth[kept].astype(np.int64) * classes + self.prediction[kept]
        return np.bincount(cells, self.pixels[kept], classes**2).reshape(classes, classes)

    def entries(self, image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """True class, predicted class and pixels, (e,) each, of one image."""
        part = slice(self.ends[image - 1] if image else 0, self.ends[image])
        return self.truth[part], self.prediction[part], self.pixels[part]

    def label_maps(self, image: int) -> tuple[np.ndarray, np.ndarray]:
        """Truth and prediction of one image, see :func:`.record.decode_maps`."""
        start = self.map_ends[image - 1] if image else 0
        return decode_maps(self.maps[start:self.map_ends[image]].tobytes())

    def _sums(self, labels: np.ndarray, classes: int,
              kept: np.ndarray | None = None) -> np.ndarray:
        """Pixels by image and label (N, K)."""
        images = np.repeat(np.arange(len(self.ends)), np.diff(self.ends, prepend=0))
        cells, pixels = images * classes + labels, self.pixels
        if kept is not None:
            cells, pixels = cells[kept], pixels[kept]
        return np.bincount(cells, pixels, len(self.ends) * classes).reshape(-1, classes)
