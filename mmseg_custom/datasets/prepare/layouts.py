"""Folders of each data set when it is prepared, and the archives that it is published as."""
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class SplitLayout:
    """One split of a data set.

    Attributes:
        name: Name of the split, such as 'training'.
        count: Number of samples in the published set.
        images: Folder of the images, below the root.
        labels: Folder of the labels, below the root.
        listed: File below the root that lists the samples; empty where the folder does.
        number: Format string of the published names, where they are numbered.
        optional: Whether the data set is complete without the split.
    """
    name: str
    count: int
    images: str
    labels: str
    listed: str = ''
    number: str = ''
    optional: bool = False


@dataclass(frozen=True)
class Archive:
    r"""A file that the data set is published as.

    Attributes:
        name: File name under which it is published.
        url: Address at which it is published.
        pattern: Regular expression, of one group, of the members that are needed.
        target: Path of a member below the root; ``\1`` is the group.
        optional: Whether the data set is complete without the archive.
    """
    name: str
    url: str
    pattern: str
    target: str = r'\1'
    optional: bool = False

    def target_of(self, member: str) -> str | None:
        """Returns the path of a member below the root; None for one that is not needed."""
        found = re.fullmatch(self.pattern, member)
        return found.expand(self.target) if found else None


@dataclass(frozen=True)
class DatasetLayout:
    """Folders, counts and archives of a data set.

    Attributes:
        name: Name on the command line.
        title: Name in messages.
        out: Default folder.
        root: Folder of the data set in ``out``; '.' for ``out`` itself.
        splits: Splits of the data set.
        archives: Archives that it is published as.
        last_label: Number of the last class in label files, as trained on.
        zero_is_ignored: Whether label files hold 0 for what is ignored and 1 for the first class.
        image_suffix: Ending of image names, behind what image and label have in common.
        label_suffix: Ending of label names.
        converter: Key of the function of :mod:`.convert` that converts labels; empty for none.
    """
    name: str
    title: str
    out: str
    root: str
    splits: tuple[SplitLayout, ...]
    archives: tuple[Archive, ...]
    last_label: int
    zero_is_ignored: bool = False
    image_suffix: str = '.jpg'
    label_suffix: str = '.png'
    converter: str = ''

    def target_of(self, member: str) -> str | None:
        """Returns the path below the root of a member of any of the archives."""
        for archive in self.archives:
            path = archive.target_of(member)
            if path is not None:
                return path
        return None


def _inside(folder: str) -> str:
    """Returns a pattern for members of a folder, with or without folders above it."""
    return rf'(?:(?:.*/)?{folder}/)?'


ADE20K = DatasetLayout(
    name='ade20k', title='ADE20K with 150 classes', out='data/ade', root='ADEChallengeData2016',
    splits=(SplitLayout('training', 20210, 'images/training', 'annotations/training',
                        number='ADE_train_{:08d}'),
            SplitLayout('validation', 2000, 'images/validation', 'annotations/validation',
                        number='ADE_val_{:08d}')),
    archives=(Archive(
        'ADEChallengeData2016.zip',
        'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',
        _inside('ADEChallengeData2016') + r'((?:images/(?:training|validation)/[^/]+\.jpg)|'
        r'(?:annotations/(?:training|validation)/[^/]+\.png)|objectInfo150\.txt|'
        r'sceneCategories\.txt)'),),
    last_label=150, zero_is_ignored=True)

CITYSCAPES = DatasetLayout(
    name='cityscapes', title='Cityscapes with fine labels', out='data/cityscapes', root='.',
    splits=(SplitLayout('train', 2975, 'leftImg8bit/train', 'gtFine/train'),
            SplitLayout('val', 500, 'leftImg8bit/val', 'gtFine/val')),
    archives=(
        Archive('leftImg8bit_trainvaltest.zip', 'https://www.cityscapes-dataset.com/downloads/',
                r'(?:.*/)?(leftImg8bit/(?:train|val|test)/[^/]+/[^/]+_leftImg8bit\.png)'),
        Archive('gtFine_trainvaltest.zip', 'https://www.cityscapes-dataset.com/downloads/',
                r'(?:.*/)?(gtFine/(?:train|val|test)/[^/]+/[^/]+_gtFine_polygons\.json)')),
    last_label=18, image_suffix='_leftImg8bit.png', label_suffix='_gtFine_labelTrainIds.png',
    converter='cityscapes')

COCO_STUFF = DatasetLayout(
    name='coco_stuff164k', title='COCO-Stuff 164k', out='data/coco_stuff164k', root='.',
    splits=(SplitLayout('train2017', 118287, 'images/train2017', 'annotations/train2017'),
            SplitLayout('val2017', 5000, 'images/val2017', 'annotations/val2017')),
    archives=(
        Archive('train2017.zip', 'http://images.cocodataset.org/zips/train2017.zip',
                r'(?:.*/)?(train2017/[^/]+\.jpg)', r'images/\1'),
        Archive('val2017.zip', 'http://images.cocodataset.org/zips/val2017.zip',
                r'(?:.*/)?(val2017/[^/]+\.jpg)', r'images/\1'),
        Archive('stuffthingmaps_trainval2017.zip',
                'http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/'
                'stuffthingmaps_trainval2017.zip',
                r'(?:.*/)?((?:train|val)2017/\d+\.png)', r'annotations/\1')),
    last_label=170, label_suffix='_labelTrainIds.png', converter='coco_stuff164k')

PASCAL_CONTEXT = DatasetLayout(
    name='pascal_context59', title='Pascal Context with 59 classes', out='data/VOCdevkit',
    root='VOC2010',
    splits=tuple(SplitLayout(name, count, 'JPEGImages', 'SegmentationClassContext',
                             f'ImageSets/SegmentationContext/{name}.txt')
                 for name, count in (('train', 4998), ('val', 5105))),
    archives=(
        Archive('VOCtrainval_03-May-2010.tar', 'http://host.robots.ox.ac.uk/pascal/VOC/voc2010/',
                _inside('VOC2010') + r'(JPEGImages/[^/]+\.jpg)'),
        Archive('trainval_merged.json',
                'https://codalabuser.blob.core.windows.net/public/trainval_merged.json',
                r'(?:.*/)?(trainval_merged\.json)')),
    last_label=59, zero_is_ignored=True, converter='pascal_context59')

VOC2012 = DatasetLayout(
    name='voc2012', title='Pascal VOC 2012', out='data/VOCdevkit', root='VOC2012',
    splits=(SplitLayout('train', 1464, 'JPEGImages', 'SegmentationClass',
                        'ImageSets/Segmentation/train.txt'),
            SplitLayout('val', 1449, 'JPEGImages', 'SegmentationClass',
                        'ImageSets/Segmentation/val.txt'),
            SplitLayout('aug', 9118, 'JPEGImages', 'SegmentationClassAug',
                        'ImageSets/Segmentation/aug.txt', optional=True)),
    archives=(
        Archive('VOCtrainval_11-May-2012.tar', 'http://host.robots.ox.ac.uk/pascal/VOC/voc2012/'
                'VOCtrainval_11-May-2012.tar',
                _inside('VOC2012') + r'(JPEGImages/[^/]+\.jpg|SegmentationClass/[^/]+\.png|'
                r'ImageSets/Segmentation/(?:train|val|trainval)\.txt)'),
        Archive('benchmark.tgz', 'http://www.eecs.berkeley.edu/Research/Projects/CS/vision/'
                'grouping/semantic_contours/benchmark.tgz',
                r'(?:.*/)?dataset/(cls/[^/]+\.mat|train\.txt|val\.txt)', r'sbd/\1',
                optional=True)),
    last_label=20, converter='voc2012')

LAYOUTS = {layout.name: layout
           for layout in (ADE20K, CITYSCAPES, COCO_STUFF, PASCAL_CONTEXT, VOC2012)}
