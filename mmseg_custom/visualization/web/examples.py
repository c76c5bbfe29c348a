"""Images to try a network on: some of those that its data set has, where they are on this disk."""
import os
import os.path as osp
from collections.abc import Iterator, Mapping
from typing import Any

from ...datasets.description import read_description
from ...errors import InputError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp')
_LISTED = 2000  # files of a large folder that some are chosen from


def images_of(options: Mapping[str, Any], count: int = 6) -> list[str]:
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
