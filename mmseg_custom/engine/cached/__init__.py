"""Training on a feature cache: its key, how it is filled, and its samples.

- ``settings``: ``feature_cache=dict(...)`` of a config
- ``key``: config + backbone + data set -> the key of a cache; any difference makes another one
- ``views``: (view, image) -> the augmented crop; (position in the stream, image) -> its record
- ``fill``: computes and writes the missing records
- ``open``: all of it in order
"""
from .open import drop_unneeded_blocks, open_cache
from .settings import CacheSettings
from .views import CachedViews

__all__ = ['CacheSettings', 'CachedViews', 'drop_unneeded_blocks', 'open_cache']
