"""Registers the data sets and the pipeline steps."""
from .ade20k import ADE20KDataset
from .transforms import CheckLabels, PadShortSide, SETR_Resize

__all__ = ['ADE20KDataset', 'CheckLabels', 'PadShortSide', 'SETR_Resize']
