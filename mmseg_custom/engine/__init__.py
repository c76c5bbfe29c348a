"""Registers the hooks; runs are started from :mod:`.train` and :mod:`.test`."""
from .hooks import ToBFloat16Hook, ToFloat16Hook

__all__ = ['ToBFloat16Hook', 'ToFloat16Hook']
