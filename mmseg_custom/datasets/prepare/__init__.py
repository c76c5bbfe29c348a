"""From a downloaded archive to a checked data set with a manifest.

    layouts.py    folders, counts, labels and archives of each data set
    archive.py    zip, tar or folder -> its members, checked
    unpack.py     members -> files; files that are there already stay
    convert.py    labels as published -> labels as trained on, by mmseg's converters
    coloured.py   labels in colours -> labels of class numbers
    samples.py    an image and its label -> faults and notes, of ../faults.py
    verify.py     counts, pairs, and all samples
    manifest.py   the files and notes of a data set without fault, with hashes
    prepare.py    the steps in their order

Its command line is tools/prepare_data.py.
"""
from .layouts import LAYOUTS, DatasetLayout
from .prepare import PrepareOptions, prepare, prepare_own

__all__ = ['LAYOUTS', 'DatasetLayout', 'PrepareOptions', 'prepare', 'prepare_own']
