"""Sizes of a record, which is one augmented crop of one image, and how many share a file.

C channels, h w patch grid, H W pixels of the crop.
"""
from dataclasses import asdict, dataclass
from math import prod

import torch

DTYPES = dict(bf16=torch.bfloat16, fp16=torch.float16, fp32=torch.float32)
# A shard is what a kill loses: a few seconds of a GPU, and small enough for a process's memory.
SHARD_BYTES, SHARD_RECORDS = 256 << 20, 64


@dataclass(frozen=True)
class RecordLayout:
    """The sizes of a cache's records.

    Attributes:
        images: Number of images in the data set; each view has one record of each.
        shapes: Shape (C, h, w) of each feature map.
        crop: Shape (H, W) of the labels, which take a byte a pixel.
        dtype: Dtype of the feature maps: 'bf16', 'fp16' or 'fp32'.
        shard_records: Records in a file, all of one view; the last file of a view may hold fewer.
    """
    images: int
    shapes: tuple[tuple[int, int, int], ...]
    crop: tuple[int, int]
    dtype: str
    shard_records: int

    @classmethod
    def of(cls, images: int, shapes: tuple[tuple[int, int, int], ...], crop: tuple[int, int],
           dtype: str) -> 'RecordLayout':
        """Returns a layout with as many records in a file as is sensible."""
        one = cls(images, shapes, crop, dtype, 1)
        return cls(images, shapes, crop, dtype,
                   max(1, min(SHARD_RECORDS, SHARD_BYTES // one.record_bytes)))

    @classmethod
    def from_plain(cls, plain: dict) -> 'RecordLayout':
        """Reads what :meth:`plain` returns."""
        return cls(plain['images'], tuple(map(tuple, plain['maps'])), tuple(plain['crop']),
                   plain['dtype'], plain['shard_records'])

    def plain(self) -> dict:
        """Returns the layout as JSON has it."""
        return {'maps' if name == 'shapes' else name: value
                for name, value in asdict(self).items()}

    @property
    def torch_dtype(self) -> torch.dtype:
        """Dtype of the feature maps."""
        return DTYPES[self.dtype]

    @property
    def record_bytes(self) -> int:
        """Bytes of one crop: its feature maps and its labels."""
        return sum(map(prod, self.shapes)) * self.torch_dtype.itemsize + prod(self.crop)

    @property
    def shards(self) -> int:
        """Number of files of a view."""
        return -(-self.images // self.shard_records)

    def images_of(self, number: int) -> range:
        """Returns the images whose records are in the file ``number`` of a view."""
        start = number * self.shard_records
        return range(start, min(start + self.shard_records, self.images))

    def place_of(self, image: int) -> tuple[int, int]:
        """Returns (number of the file, row in it) of an image."""
        return divmod(image, self.shard_records)
