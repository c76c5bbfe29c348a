"""ADE20K. Label files hold 0 for "other", which is ignored, and 1..150 for the classes."""
from mmseg.datasets.ade import ADE20KDataset as MMSegADE20KDataset
from mmseg.datasets.builder import DATASETS

from .checked import CheckedDataset


@DATASETS.register_module(force=True)
class ADE20KDataset(CheckedDataset, MMSegADE20KDataset):
    """mmseg's ADE20K data set, with checks, ``max_image_num`` and ``few_shot``."""
