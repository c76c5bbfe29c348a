"""Labels that show nothing to learn are refused before the first iteration."""
import re

import numpy as np
import pytest
from mmseg.datasets import build_dataset
from mmseg.datasets.builder import PIPELINES
from mmseg.datasets.pipelines import LoadAnnotations
from PIL import Image

from mmseg_custom.datasets import learnable
from mmseg_custom.datasets.learnable import check_learnable, check_scored
from mmseg_custom.errors import InputError


@PIPELINES.register_module()
class LoadWithImage(LoadAnnotations):
    """A step of somebody else, which reads the image."""

    def __call__(self, results):
        results['img'].mean()
        return super().__call__(results)


@PIPELINES.register_module()
class Renumber:
    """A step of somebody else, which makes classes of the numbers in the files."""

    def __call__(self, results):
        labels = results['gt_semantic_seg']
        results['gt_semantic_seg'] = (labels > 100).astype(labels.dtype)
        return results


def config(root, rows, kind='CustomDataset', load='LoadAnnotations', reduced=False, **options):
    """A data set with one label for each row of numbers."""
    for name in ('images', 'labels'):
        (root / name).mkdir()
    for i, row in enumerate(rows):
        Image.fromarray(np.array([row] * 4, np.uint8)).save(root / f'labels/{i}.png')
        Image.new('RGB', (len(row), 4)).save(root / f'images/{i}.jpg')
    if kind == 'CustomDataset':
        options = dict(classes=['a', 'b'], **options)
    return dict(type=kind, data_root=str(root), img_dir='images', ann_dir='labels', **options,
                pipeline=[dict(type=load, reduce_zero_label=reduced)])


def check(*args, **options):
    return check_learnable(build_dataset(config(*args, **options)))


def test_a_label_with_a_class_is_enough(tmp_path, monkeypatch):
    read = []
    load = LoadAnnotations.__call__
    monkeypatch.setattr(LoadAnnotations, '__call__', lambda self, results: (
        read.append(1), load(self, results))[1])
    assert check(tmp_path, [[0, 1]] * 50) == []
    assert len(read) == 1


@pytest.mark.parametrize('rows, options', [
    ([[0, 0]] * 5 + [[0, 1]], {}),
    ([[255, 255]] * 5 + [[255, 1]], {}),
    ([[1, 1], [0, 255]], dict(kind='ADE20KDataset', reduced=True, classes=['wall'])),
    ([[3]], dict(kind='ADE20KDataset', reduced=True, classes=['wall', 'sky'])),
    ([[0, 255]], dict(load='LoadWithImage')),  # not read alone: left to the training
])
def test_labels_with_something_to_learn_are_taken(tmp_path, rows, options):
    assert check(tmp_path, rows, **options) == []


def test_labels_that_a_plugin_numbers_anew_are_taken(tmp_path):
    options = config(tmp_path, [[0, 255], [200, 0]])
    options['pipeline'] = [dict(type='LoadImageFromFile'), *options['pipeline'],
                           dict(type='Renumber')]
    dataset = build_dataset(options)
    assert check_learnable(dataset) == []
    assert [sorted({*dataset[i]['gt_semantic_seg'].flat}) for i in (0, 1)] == [[0, 1]] * 2


@pytest.mark.parametrize('rows, options, message', [
    ([[0, 255], [255, 0], [0, 0]], {}, "3 label.s. of 3 in .*labels show no class but the first, "
     "'a', and pixels that are ignored .255.: in a binary mask of 0 and 255, write 1"),
    ([[255, 255]] * 3, {}, 'no pixel of a class'),
    ([[0, 255]] * 3, dict(kind='ADE20KDataset', reduced=True), 'no pixel of a class'),
    ([[0, 0]] * 3, dict(kind='ADE20KDataset', reduced=True), 'so is 0 with reduce_zero_label'),
    ([[0, 255]] * 3, dict(kind='ADE20KDataset'), "no class but the first, 'wall'"),
    ([[2, 2]] * 3, dict(kind='ADE20KDataset', reduced=True, classes=['wall', 'sky']),
     'no pixel of a class.*or correct reduce_zero_label or classes'),
])
def test_labels_without_anything_to_learn_are_refused(tmp_path, rows, options, message):
    with pytest.raises(InputError, match=message):
        check(tmp_path, rows, **options)


def test_a_part_of_several_is_refused(tmp_path):
    (tmp_path / 'good').mkdir()
    (tmp_path / 'bad').mkdir()
    parts = [config(tmp_path / 'good', [[0, 1]]), config(tmp_path / 'bad', [[0, 255]])]
    with pytest.raises(InputError, match='bad/labels show no class'):
        check_learnable(build_dataset(dict(type='RepeatDataset', times=2, dataset=parts)))


@pytest.mark.parametrize('rows, options', [
    ([[0, 0]], {}),
    ([[1, 2]], dict(kind='ADE20KDataset', reduced=True, classes=['wall', 'sky'])),
    ([[0, 1]], dict(kind='ADE20KDataset', reduced=True))])
def test_one_class_alone_is_a_warning(tmp_path, rows, options):
    [line] = check(tmp_path, rows, **options)
    assert 'nothing to tell apart' in line


def test_a_doubt_is_a_warning(tmp_path, monkeypatch):
    """Where reading all labels takes too long."""
    monkeypatch.setattr(learnable, 'SECONDS', -1)
    [line] = check(tmp_path, [[0, 255]] * 3)
    assert '1 label(s) of 3' in line


def test_a_label_that_cannot_be_read_is_left_to_the_training(tmp_path):
    options = config(tmp_path, [[0, 255]])
    dataset = build_dataset(options)
    (tmp_path / 'labels/0.png').write_bytes(b'')
    assert check_learnable(dataset) == []


def test_pictures_in_colours_are_left_to_the_training(tmp_path):
    """It says that they are pictures; here they would look like masks of 0 and 255."""
    assert check(tmp_path, [[[255, 0, 0], [0, 255, 0]]]) == []


@pytest.mark.parametrize('rows, reduced, message', [
    ([[0, 1]], False, None),
    ([[0, 0], [0, 255]], True, 'no pixel of a class.*(evaluation)'),
    ([[0, 7]], False, 'evaluation will end with: label .*0.png holds 7'),
    (None, False, None)])
def test_labels_that_are_scored_give_warnings(tmp_path, rows, reduced, message):
    options = config(tmp_path, rows or [[0, 1]], reduce_zero_label=reduced)
    if rows is None:  # images without labels, which --format-only takes
        options['ann_dir'] = 'nowhere'
    found = check_scored(build_dataset(options, dict(test_mode=True)))
    assert len(found) == bool(message) and all(re.search(message, line) for line in found)
