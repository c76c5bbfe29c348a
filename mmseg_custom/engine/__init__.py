"""Registers the runner and the hooks; runs are prepared in :mod:`.run`."""
from .hooks import SegCheckpointHook, SegOptimizerHook, ToBFloat16Hook, ToFloat16Hook
from .loggers import SegMMSegWandbHook, SegWandbLoggerHook
from .mask_annealing import MaskAnnealingHook
from .runner import SegRunner
from .text_log import SegTextLoggerHook

__all__ = ['MaskAnnealingHook', 'SegCheckpointHook', 'SegMMSegWandbHook', 'SegOptimizerHook',
           'SegRunner', 'SegTextLoggerHook', 'SegWandbLoggerHook', 'ToBFloat16Hook',
           'ToFloat16Hook']
