"""Registers the optimizer constructor and an optimizer."""
from .layer_decay import CustomLayerDecayOptimizerConstructor
from .low_memory import low_memory_adamw

__all__ = ['CustomLayerDecayOptimizerConstructor', 'low_memory_adamw']
