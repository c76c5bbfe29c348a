"""Checksums of weight files: checked at once where they are small, else while the program goes on.

    .pth          CRC-32 of each record, in the zip's directory
    safetensors   CRC-32 of each tensor, in ``__metadata__`` of files that this package wrote
    .dcp folder   each part of a tensor is a zip of torch.save; that of ``.metadata`` is in meta.pth

A large file is summed by a thread of the first process of a host. What it finds is logged at once,
and raised by :func:`finish_checks`, which is called before anything is written that depends on the
file: a checkpoint, results, a converted file. A damaged file is remembered in the user's cache
folder, so that the next ``--auto-resume`` passes it over.
"""
import json
import logging
import os
import threading
import zlib
from collections.abc import Callable

from ..errors import InputError
from ..logs import saying
from .archive import Archive, DamagedFile, chunks
from .user_cache import identity_of, read_cache, write_cache

AT_ONCE_BYTES = 256 << 20  # 0.1 s
# What finish_checks waits for a disk that does not answer: reading at 10 MB/s, and 10 minutes.
SLOWEST_BYTES, SPARE_SECONDS = 10e6, 600.  # a second; beyond that
CACHE = 'damaged.json'
SUMS = 'crc32'  # key in the metadata of a safetensors file: JSON of tensor -> eight hex digits
_CHECKS: dict[str, '_Check'] = {}  # by the identity of the file


class _Check(threading.Thread):
    """Sums a file; ``damage`` is what is wrong with it, once the thread has ended.

    ``seconds`` is how long it is waited for.
    """

    def __init__(self, path: str, identity: str, nbytes: int, check: Callable[[], None]):
        super().__init__(daemon=True, name=f'sums of {os.path.basename(path)}')
        self.path, self.identity, self.check = path, identity, check
        self.seconds = SPARE_SECONDS + nbytes / SLOWEST_BYTES
        self.damage: str | None = None

    def run(self) -> None:
        try:
            self.check()
        except DamagedFile as error:
            self.damage = str(error)
            write_cache(CACHE, {self.identity: self.damage})
            logging.getLogger('mmseg').error('%s', damaged_line(self.path, self.damage))
        except OSError as error:  # the file is gone: its next reader reports that
            logging.getLogger('mmseg').debug('no checksums of %s: %s', self.path, error)


def check_sums(path: str, nbytes: int, check: Callable[[], None]) -> None:
    """Checks the checksums of a file: at once if it is small, else in the background.

    Args:
        path: File, or folder of a sharded checkpoint.
        nbytes: Bytes to read.
        check: Function that reads them, and raises :class:`.archive.DamagedFile`.

    Raises:
        InputError: If the file is small and damaged, or is known to be damaged.
    """
    identity = identity_of(path)
    if identity in _CHECKS:
        return
    known = read_cache(CACHE).get(identity)
    if known is not None:
        raise InputError(damaged_line(path, known))
    if nbytes <= AT_ONCE_BYTES:
        try:
            check()
        except DamagedFile as error:
            raise InputError(damaged_line(path, str(error))) from error
    elif int(os.environ.get('LOCAL_RANK', 0)) == 0:
        _CHECKS[identity] = _Check(path, identity, nbytes, check)
        _CHECKS[identity].start()


def finish_checks() -> None:
    """Waits for the checks in the background.

    Raises:
        InputError: If a file is damaged, with the place, or is not read within the limit.
    """
    for check in list(_CHECKS.values()):
        with saying(f'checking the checksums of {check.path}'):
            check.join(check.seconds)
        if check.is_alive():
            raise InputError(f'{check.path} was not read within {check.seconds / 60:.0f} minutes, '
                             'to check its sums: look at its disk, or copy it to another one')
        if check.damage is not None:
            del _CHECKS[check.identity]  # opening it again is refused
            raise InputError(damaged_line(check.path, check.damage))


def check_archive(path: str, tensors: bool = True) -> None:
    """Checks the checksums of a file of torch.save.

    Raises:
        DamagedFile: If one does not match.
    """
    with open(path, 'rb') as file:
        Archive(file).check(tensors)


def check_safetensors(path: str) -> None:
    """Checks the checksums of a safetensors file, if it has any.

    Raises:
        DamagedFile: If one does not match.
    """
    with open(path, 'rb') as file:
        length = int.from_bytes(file.read(8), 'little')
        header = json.loads(file.read(length))
        sums = sums_of(header)
        for name, wanted in sums.items():
            first, last = header[name]['data_offsets']
            file.seek(8 + length + first)
            found = 0
            for chunk in chunks(file, last - first):
                found = zlib.crc32(chunk, found)
            if f'{found:08x}' != wanted:
                raise DamagedFile(f'is damaged: the CRC-32 of {name} in it is {found:08x}, '
                                  f'and was {wanted} when it was written')


def sums_of(header: dict) -> dict[str, str]:
    """Returns tensor -> checksum of a safetensors header.

    It is empty if another program wrote the file, or kept the checksums beside other tensors.

    Raises:
        DamagedFile: If the checksums cannot be read.
    """
    text = header.get('__metadata__', {}).get(SUMS)
    if text is None:
        return {}
    try:
        sums = json.loads(text)
        return sums if sums.keys() == header.keys() - {'__metadata__'} else {}
    except (ValueError, AttributeError, RecursionError) as error:
        raise DamagedFile('is damaged: its sums cannot be read') from error


def damaged_line(path: str, damage: str) -> str:
    """Returns the line for a damaged file."""
    return f'{path} {damage}: fetch, copy or save it again, or take another one'
