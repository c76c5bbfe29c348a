"""Other published data sets: mmseg's own, with the checks and the few-shot options of this package.

They replace mmseg's under the same names, so that its configs get the checks too; so does
``CustomDataset``, data of one's own with the classes in the config.
"""
from mmseg import datasets as theirs
from mmseg.datasets import cityscapes, coco_stuff, face, pascal_context, voc
from mmseg.datasets.builder import DATASETS

from .checked import CheckedDataset


@DATASETS.register_module(force=True)
class CustomDataset(CheckedDataset):
    """Data of one's own: images and labels in folders, with the classes in the config."""


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


@DATASETS.register_module(force=True)
class ChaseDB1Dataset(CheckedDataset, theirs.ChaseDB1Dataset):
    """Chase DB1: 2 classes, the background and the vessels of a retina."""


@DATASETS.register_module(force=True)
class DarkZurichDataset(CheckedDataset, theirs.DarkZurichDataset):
    """Dark Zurich: the classes of Cityscapes, at night."""


@DATASETS.register_module(force=True)
class DRIVEDataset(CheckedDataset, theirs.DRIVEDataset):
    """DRIVE: 2 classes, the background and the vessels of a retina."""


@DATASETS.register_module(force=True)
class FaceOccludedDataset(CheckedDataset, face.FaceOccludedDataset):
    """Occluded faces: 2 classes, the background and the face."""


@DATASETS.register_module(force=True)
class HRFDataset(CheckedDataset, theirs.HRFDataset):
    """HRF: 2 classes, the background and the vessels of a retina."""


@DATASETS.register_module(force=True)
class iSAIDDataset(CheckedDataset, theirs.iSAIDDataset):  # noqa: N801 - its published name
    """iSAID: 16 classes of aerial pictures, the background among them."""


@DATASETS.register_module(force=True)
class ISPRSDataset(CheckedDataset, theirs.ISPRSDataset):
    """ISPRS Vaihingen: 6 classes, 1..6 in the files."""


@DATASETS.register_module(force=True)
class LoveDADataset(CheckedDataset, theirs.LoveDADataset):
    """LoveDA: 7 classes, 1..7 in the files, and 0 for what has no data."""


@DATASETS.register_module(force=True)
class NightDrivingDataset(CheckedDataset, theirs.NightDrivingDataset):
    """Night Driving: the classes of Cityscapes, at night."""


@DATASETS.register_module(force=True)
class PotsdamDataset(CheckedDataset, theirs.PotsdamDataset):
    """ISPRS Potsdam: 6 classes, 1..6 in the files."""


@DATASETS.register_module(force=True)
class STAREDataset(CheckedDataset, theirs.STAREDataset):
    """STARE: 2 classes, the background and the vessels of a retina."""
