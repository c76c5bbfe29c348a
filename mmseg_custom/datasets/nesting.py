"""Provisional."""
import os


def innermost_datasets(dataset):
    parts = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    parts = [part for part in parts if part is not None]
    if not parts or hasattr(dataset, 'img_infos'):
        return [dataset]
    return [leaf for part in parts for leaf in innermost_datasets(part)]


def innermost_options(options):
    if isinstance(options, (list, tuple)):
        return [leaf for part in options for leaf in innermost_options(part)]
    for key in ('dataset', 'datasets'):
        if key in options:
            return innermost_options(options[key])
    return [options]


def image_names(dataset):
    names = []
    for leaf in innermost_datasets(dataset):
        names += ([info['filename'] for info in leaf.img_infos] if hasattr(leaf, 'img_infos')
                  else [f'{type(leaf).__name__} of {len(leaf)}'])
    return names


def few_shot_lists(dataset):
    return [leaf.few_shot for leaf in innermost_datasets(dataset)
            if getattr(leaf, 'few_shot', None) is not None]


def file_paths(dataset):
    for leaf in innermost_datasets(dataset):
        for info in getattr(leaf, 'img_infos', ()):
            yield os.path.join(leaf.img_dir or '', info['filename'])
            if leaf.ann_dir and 'ann' in info:
                yield os.path.join(leaf.ann_dir, info['ann']['seg_map'])
