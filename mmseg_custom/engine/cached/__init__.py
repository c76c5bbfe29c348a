"""Training on a feature cache: its key, how it is filled, and its samples.

- ``settings``: ``feature_cache=dict(...)`` of a config
- ``key``: config + backbone + data set -> the key of a cache
- ``views``: (view, image) -> the augmented crop; (position in the stream, image) -> its record
- ``fill``: computes and writes the missing records
- ``open``: opens the cache of a run, and fills it first if needed
"""
from .open import drop_unneeded_blocks, open_cache
from .settings import CacheSettings
from .views import CachedViews

__all__ = ['CacheSettings', 'CachedViews', 'drop_unneeded_blocks', 'open_cache']
