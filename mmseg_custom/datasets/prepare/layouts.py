"""What each data set looks like when it is ready, and which archives it is made of."""
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Split:
    """A part of a data set.

    Attributes:
        name: 'training'.
        count: Number of samples of the published set.
        images: Folder below the root.
        labels: Folder below the root.
        listed: File below the root that lists the samples; empty where the folder does.
        number: How the names of the published set are counted, where they are: a format string.
        optional: Whether the set is whole without it.
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
        name: As it is called where it is published.
        url: Where that is.
        pattern: Matches the members that are needed, with one group.
        target: Where a member goes below the root; ``\1`` is the group.
        optional: Whether the set is whole without it.
    """
    name: str
    url: str
    pattern: str
    target: str = r'\1'
    optional: bool = False

    def place(self, member: str) -> str | None:
        """The path of a member below the root; None for one that is not needed."""
        found = re.fullmatch(self.pattern, member)
        return found.expand(self.target) if found else None


@dataclass(frozen=True)
class Layout:
    """A data set.

    Attributes:
        name: On the command line.
        title: In messages.
        out: Default folder.
        root: Folder of the set in it; '.' for itself.
        splits: Its parts.
        archives: What it is made of.
        last_label: Largest label of a class in a file, as trained on; 255 is always allowed.
        image_suffix: Of images, behind what image and label have in common.
        label_suffix: Of labels.
        converter: Name of a function of :mod:`.convert`, for labels that have to be converted.
    """
    name: str
    title: str
    out: str
    root: str
    splits: tuple[Split, ...]
    archives: tuple[Archive, ...]
    last_label: int
    image_suffix: str = '.jpg'
    label_suffix: str = '.png'
    converter: str = ''

    def place(self, member: str) -> str | None:
        """Where a member of any of the archives goes below the root."""
        for archive in self.archives:
            path = archive.place(member)
            if path is not None:
                return path
        return None


def _inside(folder: str) -> str:
    """A pattern for members of a folder, whether the archive has folders above it or is it."""
    return rf'(?:(?:.*/)?{folder}/)?'


ADE20K = Layout(
    name='ade20k', title='ADE20K with 150 classes', out='data/ade', root='ADEChallengeData2016',
    splits=(Split('training', 20210, 'images/training', 'annotations/training',
                  number='ADE_train_{:08d}'),
            Split('validation', 2000, 'images/validation', 'annotations/validation',
                  number='ADE_val_{:08d}')),
    archives=(Archive(
        'ADEChallengeData2016.zip',
        'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',
        _inside('ADEChallengeData2016') + r'((?:images/(?:training|validation)/[^/]+\.jpg)|'
        r'(?:annotations/(?:training|validation)/[^/]+\.png)|objectInfo150\.txt|'
        r'sceneCategories\.txt)'),),
    last_label=150)

CITYSCAPES = Layout(
    name='cityscapes', title='Cityscapes with fine labels', out='data/cityscapes', root='.',
    splits=(Split('train', 2975, 'leftImg8bit/train', 'gtFine/train'),
            Split('val', 500, 'leftImg8bit/val', 'gtFine/val')),
    archives=(
        Archive('leftImg8bit_trainvaltest.zip', 'https://www.cityscapes-dataset.com/downloads/',
                r'(?:.*/)?(leftImg8bit/(?:train|val|test)/[^/]+/[^/]+_leftImg8bit\.png)'),
        Archive('gtFine_trainvaltest.zip', 'https://www.cityscapes-dataset.com/downloads/',
                r'(?:.*/)?(gtFine/(?:train|val|test)/[^/]+/[^/]+_gtFine_polygons\.json)')),
    last_label=18, image_suffix='_leftImg8bit.png', label_suffix='_gtFine_labelTrainIds.png',
    converter='cityscapes')

COCO_STUFF = Layout(
    name='coco_stuff164k', title='COCO-Stuff 164k', out='data/coco_stuff164k', root='.',
    splits=(Split('train2017', 118287, 'images/train2017', 'annotations/train2017'),
            Split('val2017', 5000, 'images/val2017', 'annotations/val2017')),
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

PASCAL_CONTEXT = Layout(
    name='pascal_context59', title='Pascal Context with 59 classes', out='data/VOCdevkit',
    root='VOC2010',
    splits=tuple(Split(name, count, 'JPEGImages', 'SegmentationClassContext',
                       f'ImageSets/SegmentationContext/{name}.txt')
                 for name, count in (('train', 4998), ('val', 5105))),
    archives=(
        Archive('VOCtrainval_03-May-2010.tar', 'http://host.robots.ox.ac.uk/pascal/VOC/voc2010/',
                _inside('VOC2010') + r'(JPEGImages/[^/]+\.jpg)'),
        Archive('trainval_merged.json',
                'https://codalabuser.blob.core.windows.net/public/trainval_merged.json',
                r'(?:.*/)?(trainval_merged\.json)')),
    last_label=59, converter='pascal_context59')

VOC2012 = Layout(
    name='voc2012', title='Pascal VOC 2012', out='data/VOCdevkit', root='VOC2012',
    splits=(Split('train', 1464, 'JPEGImages', 'SegmentationClass',
                  'ImageSets/Segmentation/train.txt'),
            Split('val', 1449, 'JPEGImages', 'SegmentationClass',
                  'ImageSets/Segmentation/val.txt'),
            Split('aug', 9118, 'JPEGImages', 'SegmentationClassAug',
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
