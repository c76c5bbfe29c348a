"""A file of records: written whole, with a checksum for each record, read by mapping.

C channels, h w patch grid, H W pixels, n records. A shard is a safetensors file with ``maps.0``,
``maps.1`` ... (n, C, h, w), ``labels`` (n, H, W) in uint8, and in its metadata the CRC-32 of each
record: over its feature maps in their order, then its labels.
"""
import json
import os
import zlib
from dataclasses import dataclass

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import atomic_path
from .layout import RecordLayout


class CorruptShard(ValueError):
    """A shard that does not hold what was written; the message says what is wrong with it."""


@dataclass(frozen=True)
class ShardData:
    """The records of a file.

    Attributes:
        features: Feature maps, (n, C, h, w) each; views of the file where they are read from one.
        labels: Labels, (n, H, W) uint8.
        crc32: Checksum of each record.
    """
    features: tuple[Tensor, ...]
    labels: Tensor
    crc32: tuple[int, ...] = ()

    @classmethod
    def empty(cls, layout: RecordLayout, records: int) -> 'ShardData':
        """Allocates memory for records."""
        return cls(tuple(torch.empty(records, *shape, dtype=layout.torch_dtype)
                         for shape in layout.shapes),
                   torch.empty(records, *layout.crop, dtype=torch.uint8))

    def checksum(self, row: int) -> int:
        """Computes the CRC-32 of a record."""
        value = 0
        for tensor in (*self.features, self.labels):
            value = zlib.crc32(tensor[row].view(torch.uint8).numpy().data, value)
        return value

    def check(self, row: int) -> None:
        """Compares a record with its checksum.

        Raises:
            CorruptShard: If they differ.
        """
        if self.checksum(row) != self.crc32[row]:
            raise CorruptShard(f'the checksum of record {row} is wrong')


def write_shard(path: str, data: ShardData) -> None:
    """Writes records into a file, whole or not at all.

    Raises:
        SaveError: If it could not be written; nothing is left of it then.
    """
    tensors = {f'maps.{i}': tensor for i, tensor in enumerate(data.features)}
    crc32 = [data.checksum(row) for row in range(len(data.labels))]
    with atomic_path(path) as part:
        try:
            save_file({**tensors, 'labels': data.labels}, part, {'crc32': json.dumps(crc32)})
            # safetensors lets only the owner read it; let everybody who may read the folder.
            os.chmod(part, os.stat(os.path.dirname(path)).st_mode & 0o666)
        except SafetensorError as error:  # raised for a full disk too
            raise OSError(str(error)) from error


def open_shard(path: str, layout: RecordLayout, records: int) -> ShardData:
    """Maps a file; no record is read yet.

    Raises:
        CorruptShard: If it was cut short, or is no shard of this layout.
    """
    try:
        with safe_open(path, 'pt') as file:
            names = [f'maps.{i}' for i in range(len(layout.shapes))]
            data = ShardData(tuple(map(file.get_tensor, names)), file.get_tensor('labels'),
                             tuple(json.loads(file.metadata()['crc32'])))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptShard(f'it cannot be read ({error})') from error
    expected = ShardData.empty(layout, 0)
    for found, wanted in zip((*data.features, data.labels), (*expected.features, expected.labels)):
        if found.shape != (records, *wanted.shape[1:]) or found.dtype != wanted.dtype:
            raise CorruptShard(f'it holds {tuple(found.shape)} {found.dtype} where '
                               f'{(records, *wanted.shape[1:])} {wanted.dtype} was expected')
    if len(data.crc32) != records:
        raise CorruptShard(f'it holds {len(data.crc32)} checksums for {records} records')
    return data
