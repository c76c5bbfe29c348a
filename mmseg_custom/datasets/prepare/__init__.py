"""From a downloaded archive to a checked data set with a manifest.

    layouts.py    what each data set looks like: folders, counts, labels, where its archives are
    archive.py    zip, tar or folder -> its members, checked
    unpack.py     members -> files, what is there already left alone
    convert.py    labels as published -> labels as trained on, by mmseg's converters
    coloured.py   labels that are pictures in colours -> labels of class numbers
    verify.py     pairs of files -> faults and notes, by samples.py
    manifest.py   what was found, with hashes
    prepare.py    the steps in their order

The user comes in by tools/prepare_data.py.
"""
from .layouts import LAYOUTS, Layout
from .prepare import Options, prepare, prepare_own

__all__ = ['LAYOUTS', 'Layout', 'Options', 'prepare', 'prepare_own']
