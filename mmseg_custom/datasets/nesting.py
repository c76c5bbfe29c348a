"""How data sets nest: the one walk over data sets that repeat or concatenate others.

    RepeatDataset, MultiImageMixDataset     hold one data set, under ``dataset``
    data.train = [dict(...), dict(...)]     is built as a ConcatDataset
    img_dir, ann_dir or split is a list     one config that is built as a ConcatDataset

Each may hold any other. The innermost ones list the files. A ConcatDataset holds its data sets as
``datasets``; mmseg builds none from a config of that type.
"""
import copy
import os.path as osp
from collections.abc import Iterator
from typing import Any

from torch.utils.data import Dataset

from ..errors import InputError

FOLDERS = ('img_dir', 'ann_dir', 'split')


def innermost_datasets(dataset: Dataset) -> list[Dataset]:
    """Lists the data sets that one repeats or concatenates, in order; a plain one is its own."""
    parts = _parts(dataset)
    return [inner for part in parts for inner in innermost_datasets(part)] if parts else [dataset]


def innermost_options(options: Any) -> list[dict]:
    """Lists the configs of the innermost data sets that mmseg's builder makes of a config.

    Args:
        options: A config of a data set, or a list of them.

    Returns:
        Configs of one folder of images each, in the order of :func:`innermost_datasets`.

    Raises:
        InputError: If lists in one config do not fit each other.
    """
    if isinstance(options, (list, tuple)):
        return [inner for part in options for inner in innermost_options(part)]
    if 'dataset' in options:
        return innermost_options(options['dataset'])
    lengths = {key: len(options[key]) for key in FOLDERS
               if isinstance(options.get(key), (list, tuple))}
    if not lengths:
        return [options]
    if len(set(lengths.values())) > 1 or list(lengths) == ['ann_dir']:
        raise InputError(f'{options.get("type")}: {" and ".join(lengths)} are lists of '
                         f'{list(lengths.values())} entries: expected lists of one length, with '
                         'img_dir or split among them')
    parts = [copy.deepcopy(options) for _ in range(max(lengths.values()))]
    for i, part in enumerate(parts):
        part.pop('separate_eval', None)  # an option of the ConcatDataset
        part.update({key: options[key][i] for key in lengths})
    return parts


def named_pipelines(options: Any, name: str = '') -> list[tuple[str, list]]:
    """Lists the pipelines of a data set's config, wrappers' own among them, with their keys.

    Returns:
        (key, steps): ('pipeline', ...) of a plain data set, ('dataset.0.pipeline', ...) of one in
        wrappers.
    """
    if isinstance(options, (list, tuple)):
        return [found for i, part in enumerate(options)
                for found in named_pipelines(part, f'{name}{i}.')]
    if not isinstance(options, dict):
        return []
    own = [(f'{name}pipeline', options['pipeline'])] if 'pipeline' in options else []
    return own + named_pipelines(options.get('dataset'), f'{name}dataset.')


def image_names(dataset: Dataset) -> list[str]:
    """Lists the images of a data set in its order, once where they are repeated."""
    names = []
    for inner in innermost_datasets(dataset):
        if hasattr(inner, 'img_infos'):
            names += [info['filename'] for info in inner.img_infos]
        else:
            names.append(f'{type(inner).__name__} of {len(inner)}')
    return names


def sample_names(dataset: Dataset) -> list[str]:
    """Lists the image of each sample of a data set, again where it is repeated."""
    parts = _parts(dataset)
    names = ([name for part in parts for name in sample_names(part)] if parts
             else image_names(dataset))
    return [names[i % len(names)] for i in range(len(dataset))]


def file_paths(dataset: Dataset) -> list[str]:
    """Lists the paths of images and labels in the data set's order, each label after its image."""
    return [path for inner in innermost_datasets(dataset)
            for pair in sample_paths(inner) for path in pair if path is not None]


def sample_paths(dataset: Dataset) -> Iterator[tuple[str, str | None]]:
    """Gives the paths of image and label of each sample of an innermost data set."""
    for info in getattr(dataset, 'img_infos', ()):
        labelled = dataset.ann_dir and 'ann' in info
        yield (osp.join(dataset.img_dir or '', info['filename']),
               osp.join(dataset.ann_dir, info['ann']['seg_map']) if labelled else None)


def few_shot_lists(dataset: Dataset) -> list:
    """Lists the :class:`.few_shot.FewShotList` of each innermost data set that has one."""
    found = [getattr(inner, 'few_shot', None) for inner in innermost_datasets(dataset)]
    return [chosen for chosen in found if chosen is not None]


def renumbered_labels(dataset: Dataset) -> str | None:
    """Describes the labels of data sets that select classes and have ``reduce_zero_label``.

    Up to version 0.30, mmseg took wrong ones. None where there is no such data set, so that runs
    and caches of other data sets keep their identity.
    """
    found = [f'{type(inner).__name__}: {list(inner.CLASSES)}'
             for inner in innermost_datasets(dataset)
             if getattr(inner, 'label_map', None) and getattr(inner, 'reduce_zero_label', False)]
    return f'numbered after reduce_zero_label; {"; ".join(found)}' if found else None


def _parts(dataset: Dataset) -> list[Dataset]:
    """Lists the data sets that a wrapper holds directly; none for a plain data set."""
    if hasattr(dataset, 'img_infos'):
        return []
    held = getattr(dataset, 'dataset', None)
    return getattr(dataset, 'datasets', None) or ([] if held is None else [held])
