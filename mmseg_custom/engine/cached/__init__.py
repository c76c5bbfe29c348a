"""Training on a feature cache: what it is of, how it is filled, and the samples in it.

- ``settings``: ``feature_cache=dict(...)`` of a config
- ``key``: config + backbone + data set -> what a cache is of; anything else is another cache
- ``views``: (view, image) -> the augmented crop; (position in the stream, image) -> its record
- ``fill``: computes and writes the records that are missing
- ``open``: all of it in order
"""
from .open import open_cache, spare_backbone
from .settings import Settings
from .views import CachedViews

__all__ = ['CachedViews', 'Settings', 'open_cache', 'spare_backbone']
