"""Lists, verifies and prunes the caches of a folder."""
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..errors import InputError, some_of
from ..missing import look_around
from ..schema import read_json
from ..units import format_bytes
from .folder import KEY, FeatureCache, Shard
from .layout import RecordLayout
from .shards import CorruptShard


@dataclass(frozen=True)
class Summary:
    """Summary of a cache, as ``tools/cache.py list`` prints it.

    Attributes:
        name: Name of its folder.
        images: Number of images in its data set.
        views: Numbers of views: (complete, begun).
        bytes: Size on the disk.
        written: Modification time of its newest file, in seconds since 1970.
        of: Backbone and weights, in a few words.
    """
    name: str
    images: int
    views: tuple[int, int]
    bytes: int
    written: float
    of: str

    def line(self) -> str:
        """Formats a line of the list."""
        whole, begun = self.views
        views = f'{whole} views' if whole == begun else f'{whole} of {begun} views'
        written = time.strftime('%Y-%m-%d %H:%M', time.localtime(self.written))
        size = format_bytes(self.bytes, decimal=True)
        return (f'{self.name}  {self.images} images x {views:<14} {size:>9}  '
                f'written {written}  {self.of}')


def caches_in(root: str) -> list[tuple[str, dict]]:
    """Returns (name, key.json) of a folder's caches; an empty dict for one that cannot be read."""
    names = sorted(os.listdir(root)) if os.path.isdir(root) else []
    return [(name, read_json(os.path.join(root, name, KEY)) or {}) for name in names
            if os.path.exists(os.path.join(root, name, KEY))]


def summarize(root: str, name: str) -> Summary:
    """Describes a cache.

    Raises:
        InputError: If it cannot be read.
    """
    cache = FeatureCache.open(root, name)
    key = read_json(os.path.join(root, name, KEY)) or {}
    shards = cache.present()
    begun = 1 + max((shard.view for shard in shards), default=-1)
    per_view = [sum(shard.view == view for shard in shards) for view in range(begun)]
    whole = sum(count == cache.layout.shards for count in per_view)
    files = [os.path.join(cache.folder, file) for file in os.listdir(cache.folder)]
    return Summary(name, cache.layout.images, (whole, begun), sum(map(os.path.getsize, files)),
                   max(map(os.path.getmtime, files)), _of(key))


def verify(cache: FeatureCache,
           progress: Callable[[list[Shard]], Iterable[Shard]] = iter) -> dict[str, str]:
    """Reads a whole cache.

    Args:
        cache: Cache, which may be in use, or being filled.
        progress: Function that wraps the list of its shards, to show the progress.

    Returns:
        Path of each corrupt shard -> what is wrong with it.
    """
    corrupt = {}
    for shard in progress(cache.present()):
        try:
            cache.check(shard)
        except CorruptShard as error:
            corrupt[cache.path_of(shard)] = str(error)
    return corrupt


def matching(root: str, beginnings: Sequence[str]) -> list[str]:
    """Returns the names of the caches that begin so; all of them if no beginning is given.

    Raises:
        InputError: If there is none, or more than one for a beginning.
    """
    names = [name for name, _ in caches_in(root)]
    found = [[name for name in names if name.startswith(beginning)] for beginning in beginnings]
    for beginning, some in zip(beginnings, found):
        if len(some) != 1:
            raise InputError(f'{beginning!r}: {len(some) or "no"} caches in {root} begin like '
                             f'that; there are: {some_of(names) or "none"}')
    if not os.path.isdir(root):
        raise InputError(f'{root} does not exist'
                         f'{look_around(root, "expected a feature_cache.dir")}')
    return [some[0] for some in found] if beginnings else names


def delete(root: str, name: str) -> None:
    """Removes a cache, also one whose key.json cannot be read.

    Raises:
        InputError: If a process uses it.
    """
    if not FeatureCache(root, name, RecordLayout(0, (), (0, 0), 'bf16', 1)).delete():
        raise InputError(f'cache {os.path.join(root, name)} is in use: wait for the end of the '
                         'runs that train on it or fill it')


def content_of(backbone: dict) -> str:
    """Says in words what a cache holds of a backbone, by the settings in its key."""
    maps, before = backbone.get('out_indices'), backbone.get('tokens_before')
    if before is None:
        return f'blocks {maps}'
    return f'tokens before block {before}' + (f' and maps of blocks {maps}' if maps else '')


def _of(key: dict) -> str:
    """Summarizes a key.json: the backbone's size, blocks and dtypes, the weights."""
    of = key.get('of', {})
    backbone = of.get('backbone', {})
    weights = (key.get('about') or {}).get('weights') or of.get('weights', '?')
    frozen = backbone.get('frozen_dtype')
    return (f'{content_of(backbone)} of {backbone.get("depth")}, width '
            f'{backbone.get("embed_dim")}, {key["layout"]["dtype"]}'
            f'{f" of {frozen} weights" if frozen else ""}; {weights}')
