"""Whose code a class or function is: a plugin's may give names and numbers a meaning of its own."""
from collections.abc import Callable

KNOWN_LIBRARIES = ('mmcv', 'mmseg', 'mmseg_custom', 'timm', 'torch')


def is_known(target: Callable | None) -> bool:
    """Returns whether a class or function is of a library whose ways are known here."""
    return target is not None and is_known_module(target.__module__)


def is_known_module(name: str) -> bool:
    """Returns whether a module belongs to such a library."""
    return name.partition('.')[0] in KNOWN_LIBRARIES
