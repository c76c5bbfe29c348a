"""File -> checked tensors -> model, and back.

Three ways through this package:

- any file or folder -> ``files`` (opened, mapped) -> ``keys`` (names) -> ``load`` -> a backbone
- a checkpoint -> ``segmentor`` (joined with its backbone's file, ``provenance``) -> a segmentor
- a model -> ``save`` -> a checkpoint; a file -> ``convert`` or ``merge`` -> ``export`` -> a file

It knows torch and the position embedding alone; ``guard`` knows mmcv once it is called.
"""
from .guard import install_safe_loading
from .load import load_backbone
from .provenance import sha256_in_background
from .save import (
    SaveError,
    atomic_save,
    is_whole,
    newest_whole,
    point_latest_to,
    save_checkpoint,
    sweep,
)
from .segmentor import load_segmentor, read_checkpoint

__all__ = ['SaveError', 'atomic_save', 'install_safe_loading', 'is_whole', 'load_backbone',
           'load_segmentor', 'newest_whole', 'point_latest_to', 'read_checkpoint',
           'save_checkpoint', 'sha256_in_background', 'sweep']
