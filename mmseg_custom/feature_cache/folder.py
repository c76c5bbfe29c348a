"""A cache on disk, shared by the ranks of a run and by several runs.

A process that writes a shard holds a record lock on the shard's byte of the lock file; the kernel
frees it when the process ends, however it ends. So ranks and runs that fill the same cache split
the work without messages, and the shards of a killed one are free again. Another byte is locked
(shared) while a cache is in use, so that it is not pruned meanwhile.
"""
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from ..errors import InputError
from ..files import PART, SaveError, atomic_write
from ..schema import array, choice, integer, nullable, read_json, record, validate
from .layout import DTYPES, RecordLayout
from .shards import CorruptShard, ShardData, open_shard, write_shard

KEY, LOCK, CHECKED, SUFFIX = 'key.json', 'lock', 'checked.json', '.safetensors'
IN_USE = 0  # the byte of the lock file; shards have the ones after it
KEY_CONTENT = record(dict(layout=record(dict(
    images=integer(1), maps=array(array(integer(1), 'channels, height and width', 3, 3), 'shapes'),
    crop=array(integer(1), 'height and width', 2, 2), dtype=choice(*DTYPES),
    shard_records=integer(1)))), dict(of=record({}, dict(backbone=record({}))),
                                      about=nullable(record({}))))
OPEN_SHARDS = 256  # mapped at once


class Shard(NamedTuple):
    """A file of a cache: its view, and its number among the files of that view."""
    view: int
    number: int


class FeatureCache:
    """One cache: the folder ``root/name``.

    Args:
        root: Folder of caches.
        name: Name of this cache in it.
        layout: Sizes of its records.
    """

    def __init__(self, root: str, name: str, layout: RecordLayout):
        self.folder = os.path.join(root, name)
        self.layout = layout
        self._lock: int | None = None
        self._opened = lru_cache(OPEN_SHARDS)(self._map)
        self._checked: set[tuple[int, int]] = set()  # (view, image)

    def __reduce__(self) -> tuple:
        """Serves loader workers that are spawned; locks stay with the process that took them."""
        return FeatureCache, (*os.path.split(self.folder), self.layout)

    @classmethod
    def of(cls, root: str, of: dict, layout: RecordLayout) -> 'FeatureCache':
        """Returns the cache of a key, which may have nothing on the disk yet.

        Args:
            root: Folder of caches.
            of: Everything that decides what the cache holds, as plain values; another dict is
                another cache.
            layout: Sizes of its records.
        """
        text = json.dumps(dict(of=of, layout=layout.plain()), sort_keys=True)
        return cls(root, hashlib.sha256(text.encode()).hexdigest()[:16], layout)

    def begin(self, of: dict, about: dict) -> None:
        """Makes the folder and its key.json, if they are not there.

        Args:
            of: See :meth:`of`.
            about: Further plain values for people who read key.json.

        Raises:
            OSError: If the folder cannot be written.
        """
        path = os.path.join(self.folder, KEY)
        if (read_json(path) or {}).get('of') != json.loads(json.dumps(of)):
            os.makedirs(self.folder, exist_ok=True)
            key = dict(of=of, layout=self.layout.plain(), about=about)
            atomic_write(path, json.dumps(key, indent=1))

    @classmethod
    def open(cls, root: str, name: str) -> 'FeatureCache':
        """Opens a cache by its name.

        Raises:
            InputError: If it is not there, or its key.json cannot be read.
        """
        path = os.path.join(root, name, KEY)
        key = read_json(path) or {}
        validate(key, KEY_CONTENT, path, f'prune the cache {name}, or run its config again, which '
                 'writes the file anew')
        return cls(root, name, RecordLayout.from_plain(key['layout']))

    def path_of(self, shard: Shard) -> str:
        """Returns the path of a shard, which may not be there."""
        return os.path.join(self.folder, f'view{shard.view:02d}_{shard.number:05d}{SUFFIX}')

    def shards(self, views: int) -> list[Shard]:
        """Returns all shards of the first views."""
        return [Shard(view, number) for view in range(views)
                for number in range(self.layout.shards)]

    def present(self) -> list[Shard]:
        """Returns the shards that are there, of any view."""
        return [shard for _, shard in self._named(SUFFIX)]

    def _named(self, suffix: str) -> list[tuple[str, Shard]]:
        """Returns (path, shard) of the files with a suffix that are named like shards."""
        names = os.listdir(self.folder) if os.path.isdir(self.folder) else []
        matches = [re.fullmatch(r'view(\d+)_(\d+)' + re.escape(suffix), name) for name in names]
        return sorted((os.path.join(self.folder, match[0]), Shard(int(match[1]), int(match[2])))
                      for match in matches if match)

    def missing(self, views: int) -> list[Shard]:
        """Returns the shards of the first views that are not there."""
        present = set(self.present())
        return [shard for shard in self.shards(views) if shard not in present]

    def is_complete(self, views: int) -> bool:
        """Whether nothing of the first views is missing."""
        return sum(shard.view < views for shard in self.present()) == views * self.layout.shards

    def bytes_of(self, shard: Shard) -> int:
        """Returns the size of a shard without its header."""
        return len(self.layout.images_of(shard.number)) * self.layout.record_bytes

    def write(self, shard: Shard, data: ShardData) -> None:
        """Writes a shard that this process has claimed.

        Raises:
            SaveError: If it could not be written.
        """
        write_shard(self.path_of(shard), data)

    def read(self, image: int, view: int) -> tuple[list[Tensor], Tensor]:
        """Reads a record; the first time in this process, its checksum too.

        Args:
            image: Index in the data set.
            view: Number of the view.

        Returns:
            The feature maps, (C, h, w) each in the dtype of the cache, and the labels (H, W) in
            uint8; they are views of the mapped file.

        Raises:
            InputError: If the record is not what was written. Its shard is set aside then: it is
                computed again when the run starts again.
        """
        number, row = self.layout.place_of(image)
        shard = Shard(view, number)
        try:
            data = self._opened(shard)
            if (view, image) not in self._checked:
                data.check(row)
                self._checked.add((view, image))
        except CorruptShard as error:
            self.remove(shard)
            raise InputError(f'feature cache: {self.path_of(shard)} is corrupt ({error}) and is '
                             'removed: start the run again (--auto-resume resumes it), it computes '
                             'the file anew') from error
        return [tensor[row] for tensor in data.features], data.labels[row]

    def check(self, shard: Shard) -> None:
        """Reads a whole shard.

        Raises:
            CorruptShard: If a record is not what was written, or is not there.
        """
        data = self._map(shard)
        for row in range(len(data.labels)):
            data.check(row)

    def remove(self, shard: Shard) -> None:
        """Removes a shard, if it is still there; processes that have it mapped still read it."""
        try:
            os.remove(self.path_of(shard))
        except FileNotFoundError:
            pass

    def _map(self, shard: Shard) -> ShardData:
        return open_shard(self.path_of(shard), self.layout,
                          len(self.layout.images_of(shard.number)))

    def unchecked(self) -> list[Shard]:
        """Returns the shards whose checksums were not compared since they were last written."""
        known = read_json(os.path.join(self.folder, CHECKED)) or {}
        return [shard for shard in self.present()
                if known.get(os.path.basename(self.path_of(shard))) != self._stat(shard)]

    def note_checked(self) -> None:
        """Records that every shard that is here was checked, if the folder may be written."""
        path = os.path.join(self.folder, CHECKED)
        known = {os.path.basename(self.path_of(shard)): self._stat(shard)
                 for shard in self.present()}
        if known == read_json(path):
            return
        try:
            atomic_write(path, json.dumps(known, indent=0))
        except SaveError as error:
            logging.getLogger('mmseg').debug('shards are checked again next time: %s', error)

    def _stat(self, shard: Shard) -> list[int]:
        stat = os.stat(self.path_of(shard))
        return [stat.st_size, stat.st_mtime_ns, stat.st_ino]

    def claim(self, shard: Shard) -> bool:
        """Claims a shard for this process to write; False if another process has it."""
        return self._take(self._byte_of(shard), fcntl.LOCK_EX)

    def release(self, shard: Shard) -> None:
        """Frees a claimed shard."""
        fcntl.lockf(self._lock_file(), fcntl.LOCK_UN, 1, self._byte_of(shard))

    def hold(self) -> None:
        """Marks the cache as in use until this process ends.

        On a file system that is mounted read-only there is nothing to mark, and nothing to fear.
        """
        try:
            self._take(IN_USE, fcntl.LOCK_SH)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise

    def delete(self) -> bool:
        """Removes the whole cache; False if a process uses it."""
        if not self._take(0, fcntl.LOCK_EX, 0):  # no length: all bytes
            return False
        shutil.rmtree(self.folder)
        return True

    def remove_leftovers(self) -> list[str]:
        """Removes what killed processes left half-written; returns the paths."""
        removed = []
        for path, shard in self._named(SUFFIX + PART):
            if self.claim(shard):
                os.remove(path)
                self.release(shard)
                removed.append(path)
        return removed

    def _byte_of(self, shard: Shard) -> int:
        return IN_USE + 1 + shard.view * self.layout.shards + shard.number

    def _lock_file(self) -> int:
        if self._lock is None:
            # Never closed: closing any descriptor of the file would give all its locks back.
            self._lock = os.open(os.path.join(self.folder, LOCK), os.O_RDWR | os.O_CREAT, 0o666)
        return self._lock

    def _take(self, first: int, kind: int, count: int = 1) -> bool:
        """Locks bytes of the lock file, if no other process holds them."""
        file = self._lock_file()
        try:
            fcntl.lockf(file, kind | fcntl.LOCK_NB, count, first)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise OSError(error.errno, f'cannot be locked ({error.strerror})',
                          os.path.join(self.folder, LOCK)) from error
        return True
