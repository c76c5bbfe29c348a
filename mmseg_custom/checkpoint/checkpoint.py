"""Provisional."""
from dataclasses import dataclass

from .dcp_metadata import is_sharded_checkpoint
from .lazy import LazyStateDict
from .segmentor import open_checkpoint as _open
from .segmentor import own_tensors


@dataclass(frozen=True)
class Checkpoint:
    path: str
    meta: dict
    weights: LazyStateDict
    optimizer: dict | None
    is_sharded: bool

    @property
    def backbone_record(self):
        entry = self.meta.get('backbone')
        return entry if isinstance(entry, dict) and 'sha256' in entry else None

    @property
    def holds_backbone(self):
        return self.backbone_record is None


def open_checkpoint(path):
    content = _open(path)
    return Checkpoint(path, content.get('meta') or {}, own_tensors(content, path),
                      content.get('optimizer'), is_sharded_checkpoint(path))
