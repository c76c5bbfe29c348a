"""The network that a checkpoint is of, as the config in its metadata says."""
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from .load import Mismatch

PARTS = ('backbone', 'decode_head')


@dataclass(frozen=True)
class NetworkName:
    """What a network is called by.

    Attributes:
        backbone: Type of its backbone, if known.
        decode_head: Type of its head, of the first of several, if known.
        num_classes: Number of its classes, if known.
    """
    backbone: str | None = None
    decode_head: str | None = None
    num_classes: int | None = None

    @classmethod
    def recorded_in(cls, meta: Mapping[str, Any]) -> 'NetworkName':
        """Reads the metadata of a checkpoint: the text of its config is not run, but searched."""
        text = meta.get('config')
        found = {part: re.search(rf'\b{part}\W+(?:dict\W+)*type\W+(\w+)',
                                 text if isinstance(text, str) else '') for part in PARTS}
        classes = meta.get('CLASSES')
        return cls(**{part: match.group(1) for part, match in found.items() if match},
                   num_classes=len(classes) if isinstance(classes, (list, tuple)) else None)

    @classmethod
    def of(cls, model: nn.Module) -> 'NetworkName':
        """Reads a segmentor."""
        parts = {part: getattr(model, part, None) for part in PARTS}
        heads = parts['decode_head']
        if isinstance(heads, nn.ModuleList):
            parts['decode_head'] = heads[0]
        return cls(**{part: type(module).__name__ for part, module in parts.items()
                      if module is not None}, num_classes=getattr(model, 'num_classes', None))

    def differs_from(self, other: 'NetworkName') -> bool:
        """Returns whether something that is known of both differs."""
        return any(None not in (mine, theirs) and mine != theirs for mine, theirs in (
            (getattr(self, name), getattr(other, name)) for name in (*PARTS, 'num_classes')))

    def __str__(self) -> str:
        parts = ' with '.join(filter(None, (self.backbone, self.decode_head))) or 'a network'
        return parts + (f' of {self.num_classes} classes' if self.num_classes else '')


@contextmanager
def compared_with(meta: Mapping[str, Any], model: nn.Module) -> Iterator[None]:
    """Adds to a mismatch what network the checkpoint is of, where its metadata says another one.

    Raises:
        Mismatch: In the place of one.
    """
    try:
        yield
    except Mismatch as error:
        recorded, built = NetworkName.recorded_in(meta), NetworkName.of(model)
        if not recorded.differs_from(built):
            raise
        raise Mismatch(f'{error}. By its metadata it is of {recorded}; the config builds {built}',
                       error.parts) from error
