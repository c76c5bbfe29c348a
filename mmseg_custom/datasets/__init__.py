"""Registers the data sets and the pipeline steps."""
from .ade20k import ADE20KDataset
from .described import DescribedDataset
from .loading import LoadImageReduced, ResizeLabels
from .published import (
    CityscapesDataset,
    COCOStuffDataset,
    PascalContextDataset,
    PascalContextDataset59,
    PascalVOCDataset,
)
from .transforms import CheckLabels, PadShortSide, SETR_Resize

__all__ = ['ADE20KDataset', 'COCOStuffDataset', 'CheckLabels', 'CityscapesDataset',
           'DescribedDataset', 'LoadImageReduced', 'PadShortSide', 'PascalContextDataset',
           'PascalContextDataset59', 'PascalVOCDataset', 'ResizeLabels', 'SETR_Resize']
