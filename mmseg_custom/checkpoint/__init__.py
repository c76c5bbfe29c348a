"""File -> checked tensors -> model, and back.

Four ways through this package:

- any file or folder -> ``files`` (opened, mapped) -> ``keys`` (names) -> ``load`` -> a backbone
- a checkpoint -> ``checkpoint`` (opened once) -> ``segmentor`` (joined with its backbone's file,
  ``provenance``) -> a segmentor
- a model -> ``save`` (by ``export``) or ``sharded`` -> a checkpoint; ``optimizer``, by names
- a file -> ``convert`` or ``merge`` -> ``export`` -> a file

What comes in is read within bounds (``archive``, ``pickles``, ``shard_metadata``), checked once
(``content``) and summed (``integrity``).

It knows torch and the position embedding alone; ``guard`` knows mmcv once it is called. Modules are
imported where they are used: those of sharded checkpoints are slow to import, and loading a
backbone needs none of them.
"""
from typing import TYPE_CHECKING

from ..files import SaveError
from ..late_imports import late_names

if TYPE_CHECKING:
    from .checkpoint import Checkpoint, open_checkpoint
    from .guard import install_safe_loading
    from .load import load_backbone
    from .optimizer import load_optimizer
    from .provenance import sha256_in_background
    from .save import save_checkpoint
    from .segmentor import load_segmentor, read_checkpoint
    from .shard_reader import is_sharded_checkpoint
    from .sharded import load_shards, save_sharded
    from .work_dir import (
        is_whole,
        newest_whole,
        point_latest_to,
        remove_checkpoint,
        remove_leftovers,
    )

__all__ = ['Checkpoint', 'SaveError', 'install_safe_loading', 'is_sharded_checkpoint',
           'is_whole', 'load_backbone', 'load_optimizer', 'load_segmentor', 'load_shards',
           'newest_whole', 'open_checkpoint', 'point_latest_to', 'read_checkpoint',
           'remove_checkpoint', 'remove_leftovers', 'save_checkpoint', 'save_sharded',
           'sha256_in_background']

__getattr__ = late_names(__name__, {
    'checkpoint': ['Checkpoint', 'open_checkpoint'],
    'guard': ['install_safe_loading'],
    'load': ['load_backbone'],
    'optimizer': ['load_optimizer'],
    'provenance': ['sha256_in_background'],
    'save': ['save_checkpoint'],
    'segmentor': ['load_segmentor', 'read_checkpoint'],
    'shard_reader': ['is_sharded_checkpoint'],
    'sharded': ['load_shards', 'save_sharded'],
    'work_dir': ['is_whole', 'newest_whole', 'point_latest_to', 'remove_checkpoint',
                 'remove_leftovers'],
})
