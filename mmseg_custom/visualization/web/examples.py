"""What the page says of itself, and images to try it on: some of those that the data set has."""
import os
import os.path as osp
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from ...datasets.description import read_description
from ...datasets.nesting import innermost_options
from ...errors import InputError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp')
SHOWN = 6
UNTRAINED = '**This network is untrained: its labels mean nothing.** `make demo` trains it.'
_LISTED = 2000  # files of a large folder that some are chosen from


def describe(network: str, classes: int, checkpoint: str, device: str) -> str:
    """Returns what the page does, and with which network, in Markdown.

    Args:
        network: Name of the network.
        classes: Number of its classes.
        checkpoint: Path of its weights; 'none' for an untrained network.
        device: 'cuda' or 'cpu'.
    """
    where = 'a GPU' if device == 'cuda' else 'the CPU'
    text = (f'Give an image, and see which of {classes} classes each pixel is of. The network is '
            f'{network}, on {where}.')
    if checkpoint == 'none':
        return f'{text}\n\n{UNTRAINED}'
    return f'{text} Its weights are those of `{checkpoint}`.'


def examples_for(options: Any, draw: Callable[[int], np.ndarray], hides_data: bool) -> list[str]:
    """Returns images to click: of a data set if it is here, else drawn ones.

    Args:
        options: Config of the data set.
        draw: Function from the number of an image to RGB uint8 (H, W, 3).
        hides_data: Whether the page shows no data of this machine, as where others reach it.
    """
    found = [] if hides_data else images_of(innermost_options(options)[0])
    if found:
        return found
    folder = tempfile.mkdtemp()
    for number in range(SHOWN):
        found.append(osp.join(folder, f'drawn_{number + 1}.png'))
        Image.fromarray(draw(number)).save(found[-1])
    return found


def images_of(options: Mapping[str, Any], count: int = SHOWN) -> list[str]:
    """Chooses images of a data set, spread over its folder.

    Args:
        options: Config of an innermost data set. Its files are not opened.
        count: Largest number of images.

    Returns:
        Paths; none where there is no such folder.
    """
    folder = _folder_of(options)
    if folder is None or not osp.isdir(folder):
        return []
    found = sorted(path for path, _ in zip(_images_below(folder), range(_LISTED)))
    return [found[i * len(found) // count] for i in range(count)] if len(found) > count else found


def _folder_of(options: Mapping[str, Any]) -> str | None:
    folder, root = options.get('img_dir'), options.get('data_root')
    if isinstance(folder, str):
        return folder if osp.isabs(folder) or not root else osp.join(root, folder)
    if 'description' not in options:
        return None
    try:
        return str(read_description(options['description']).part(options['part']).images)
    except InputError:  # The network can be tried without.
        return None


def _images_below(folder: str) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES):
                yield osp.join(place, name)
