"""Registers the runner and the hooks; runs are prepared in :mod:`.run`."""
from .hooks import SegCheckpointHook, SegOptimizerHook, ToBFloat16Hook, ToFloat16Hook
from .runner import SegRunner

__all__ = ['SegCheckpointHook', 'SegOptimizerHook', 'SegRunner', 'ToBFloat16Hook',
           'ToFloat16Hook']
