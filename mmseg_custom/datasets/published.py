"""Other published data sets: mmseg's own, with the checks and the few-shot options of this package.

They replace mmseg's under the same names, so that its configs get the checks too.
"""
from mmseg.datasets import cityscapes, coco_stuff, pascal_context, voc
from mmseg.datasets.builder import DATASETS

from .checked import CheckedDataset


@DATASETS.register_module(force=True)
class CityscapesDataset(CheckedDataset, cityscapes.CityscapesDataset):
    """Cityscapes: 19 classes, 0..18 in the files ``*_gtFine_labelTrainIds.png``."""


@DATASETS.register_module(force=True)
class COCOStuffDataset(CheckedDataset, coco_stuff.COCOStuffDataset):
    """COCO-Stuff 164k: 171 classes, 0..170 in the files ``*_labelTrainIds.png``."""


@DATASETS.register_module(force=True)
class PascalContextDataset(CheckedDataset, pascal_context.PascalContextDataset):
    """Pascal Context with 60 classes, the background among them."""


@DATASETS.register_module(force=True)
class PascalContextDataset59(CheckedDataset, pascal_context.PascalContextDataset59):
    """Pascal Context with 59 classes: 1..59 in the files, and 0 for the background, ignored."""


@DATASETS.register_module(force=True)
class PascalVOCDataset(CheckedDataset, voc.PascalVOCDataset):
    """Pascal VOC: 21 classes, the background among them; 255 on the borders of things."""
