"""The panel of an evaluation: some images with their ground truth and predictions, side by side.

The predictions are those of the evaluation; the network computes nothing twice. Their labels are
kept in the size of the pictures, and reach rank 0 with the results of their images.

Letters: `H W` pixels, `h w` pixels of a picture, at most those of a cell of the grid.
"""
import os.path as osp
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from ..visualization.files import read_image
from ..visualization.grid import fitted, picture_grid, resize_labels
from ..visualization.predictions import palette_of, part_of, read_classes

Keep = Callable[[list[np.ndarray], list[int]], Sequence]


@dataclass(frozen=True)
class Shown:
    """Result of an image of the panel.

    Attributes:
        index: Index of the image in the data set.
        labels: Predicted labels, uint8 (h, w).
        result: Result of the image for the metrics.
    """
    index: int
    labels: np.ndarray
    result: Any


@dataclass(frozen=True)
class Picture:
    """One picture of the panel.

    Attributes:
        number: Place in the panel, from 0 on: the same image in each evaluation.
        name: File name of the image.
        image: RGB picture: image, ground truth, prediction and a legend.
    """
    number: int
    name: str
    image: Image.Image


def spread(total: int, count: int) -> list[int]:
    """Chooses images: the middle one of each of ``count`` equal stretches of a data set."""
    count = min(count, total)
    return [(2 * number + 1) * total // (2 * count) for number in range(count)]


@dataclass(frozen=True)
class PredictionPanel:
    """Keeps the predictions of some images of a data set, and draws them.

    Attributes:
        dataset: Validation data, one data set or several that are tested together.
        count: Number of images; a smaller data set gives fewer.
    """
    dataset: Dataset
    count: int

    @property
    def chosen(self) -> list[int]:
        """Indices of the images, the same in each evaluation."""
        return spread(len(self.dataset), self.count)

    def keeping(self, keep: Keep | None) -> Keep:
        """Extends what makes results of labels: that of an image shown becomes a :class:`Shown`.

        Args:
            keep: Function of label maps (H, W) and the indices of their images; None: the labels
                are the results.
        """
        chosen = frozenset(self.chosen)

        def keep_both(labels: list[np.ndarray], indices: list[int]) -> Sequence:
            results = labels if keep is None else keep(labels, indices)
            return [Shown(index, resize_labels(own, fitted(own.shape)), result)
                    if index in chosen else result
                    for own, index, result in zip(labels, indices, results)]
        return keep_both

    def pictures(self, shown: Sequence[Shown]) -> list[Picture]:
        """Draws the pictures of an evaluation.

        Raises:
            InputError: If an image or its labels cannot be read.
        """
        place = {index: number for number, index in enumerate(self.chosen)}
        return [Picture(place[one.index], *self._draw(one)) for one in shown]

    def _draw(self, one: Shown) -> tuple[str, Image.Image]:
        dataset, index, _ = part_of(self.dataset, one.index)
        name = dataset.img_infos[index]['filename']
        size = one.labels.shape[::-1]
        image = Image.fromarray(read_image(osp.join(dataset.img_dir, name)))
        ground_truth = resize_labels(read_classes(dataset, index), size)
        row = np.asarray(image.resize(size, Image.Resampling.LANCZOS)), ground_truth, one.labels
        return name, picture_grid([row], dataset.CLASSES, palette_of(dataset))


def split(results: Sequence) -> tuple[list, list[Shown]]:
    """Takes the images that are shown out of results; returns the results, and the images."""
    shown = [one for one in results if isinstance(one, Shown)]
    return [one.result if isinstance(one, Shown) else one for one in results], shown
