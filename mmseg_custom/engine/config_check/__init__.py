"""What a config may hold, and its check before anything is built from it.

- ``kinds``: kinds of values, and what annotations and defaults say of them
- ``tables``: kinds of the values of mmcv's and mmseg's classes, and of dicts without a type
- ``signatures``: a registered class -> the keys that it reads
- ``sections``: the dicts of a config, and what reads each
- ``sources``: the keys that config files and plugins read
- ``check``: all of this, at the door
"""
from .check import check_config

__all__ = ['check_config']
