"""A data set of one's own, which a YAML file describes."""
from mmseg.datasets.builder import DATASETS

from ..errors import InputError
from .checked import CheckedDataset
from .description import read_description
from .listing import ANY


@DATASETS.register_module()
class DescribedDataset(CheckedDataset):
    """Images and labels in folders, with the classes and colours of a YAML file.

    Args:
        description: Path of the file, see :mod:`.description`.
        part: Name of the split: 'train', 'val' or 'test'.
        **kwargs: Arguments of :class:`.checked.CheckedDataset`, but for folders and classes, which
            the file gives.

    Raises:
        InputError: If the file is wrong, or one of its folders is missing or empty.
    """

    any_suffix = f'image_suffix: {ANY} in the description'

    def __init__(self, description: str, part: str, **kwargs):
        self.description = read_description(description)
        folders = self.description.part(part)
        for name in ('img_dir', 'ann_dir', 'img_suffix', 'seg_map_suffix', 'classes', 'palette',
                     'reduce_zero_label', 'data_root'):
            if kwargs.get(name):
                raise InputError(f'{type(self).__name__}: {name} is what {description} says; leave '
                                 'it out of the config')
            kwargs.pop(name, None)
        super().__init__(
            img_dir=str(folders.images), ann_dir=folders.labels and str(folders.labels),
            img_suffix=self.description.image_suffix,
            seg_map_suffix=self.description.label_suffix,
            classes=list(self.description.classes),
            palette=[list(colour) for colour in self.description.classes.values()], **kwargs)
