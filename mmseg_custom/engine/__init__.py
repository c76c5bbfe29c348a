"""Registers the runner and the hooks; runs are prepared in :mod:`.run`."""
from .hooks import SegCheckpointHook, SegOptimizerHook, ToBFloat16Hook, ToFloat16Hook
from .mask_annealing import MaskAnnealingHook
from .runner import SegRunner
from .text_log import SegTextLoggerHook
from .tracking import MlflowTracker, MMSegWandbTracker, TensorboardTracker, WandbTracker

__all__ = ['MMSegWandbTracker', 'MaskAnnealingHook', 'MlflowTracker', 'SegCheckpointHook',
           'SegOptimizerHook', 'SegRunner', 'SegTextLoggerHook', 'TensorboardTracker',
           'ToBFloat16Hook', 'ToFloat16Hook', 'WandbTracker']
