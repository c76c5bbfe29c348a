"""Data sets that are tested together: their metrics are those that mmseg computes either way."""
import logging

import numpy as np
import pytest
from helpers.nesting import FOLDERS, NESTINGS, TRAIN, VAL, mixed, repeated
from helpers.results import guesses
from mmseg.datasets import build_dataset

from mmseg_custom.datasets.build import build_test_dataset
from mmseg_custom.datasets.concatenated import ConcatTestDataset
from mmseg_custom.datasets.nesting import innermost_datasets
from mmseg_custom.errors import InputError
from mmseg_custom.evaluation import evaluate, pre_eval

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)]


def plain(root, folder='training', **options) -> dict:
    return dict(type='ADE20KDataset', data_root=str(root), pipeline=PIPELINE,
                img_dir=f'images/{folder}', ann_dir=f'annotations/{folder}', **options)


def mmsegs(root, separate: bool):
    """Builds the ConcatDataset of mmseg itself."""
    return build_dataset({**plain(root), **FOLDERS, 'separate_eval': separate},
                         dict(test_mode=True))


def predictions_of(dataset) -> list[np.ndarray]:
    return [labels for part in innermost_datasets(dataset) for labels in guesses(part, .3)]


@pytest.mark.parametrize('options', [
    lambda root: {**plain(root), **FOLDERS},
    lambda root: {**plain(root), **FOLDERS, 'separate_eval': False},
    lambda root: [plain(root), plain(root, 'validation')]])
def test_metrics_of_each_and_of_all(shared_data, options):
    dataset = build_test_dataset(options(shared_data))
    predictions, indices = predictions_of(dataset), list(range(9))
    expected = {}
    for separate in (True, False):
        theirs = mmsegs(shared_data, separate)
        expected.update(theirs.evaluate(theirs.pre_eval(predictions, indices)))
    assert {'0_mIoU', '1_mIoU', 'mIoU', 'IoU.wall', '1_IoU.wall'} <= expected.keys()
    for results in (predictions, dataset.pre_eval(predictions, indices)):
        np.testing.assert_equal(dict(dataset.evaluate(results, metric='mIoU')), expected)
    records = pre_eval(dataset, predictions, indices, boundary=True)
    found = evaluate(dataset, records, ['mIoU', 'mBIoU'])
    np.testing.assert_equal({name: found['metric'][name] for name in expected}, expected)
    assert 0 < found['metric']['1_mBIoU'] < found['metric']['1_mIoU']
    assert [part['images'] for part in found['data_sets']] == [6, 3]
    assert found['data_sets'][1]['image_folder'] == f'{shared_data}/images/validation'
    for part, prefix in ((found, ''), (found['data_sets'][0], '0_'), (found['data_sets'][1], '1_')):
        assert part['interval']['low'] < expected[f'{prefix}mIoU'] < part['interval']['high']
    assert [record.name for record in records] == [
        *(f'training/{name}.jpg' for name in TRAIN), *(f'validation/{name}.jpg' for name in VAL)]


def test_skipped_images_are_left_out_of_their_data_set(shared_data):
    dataset = build_test_dataset([plain(shared_data), plain(shared_data, 'validation')])
    predictions, kept = predictions_of(dataset), [0, 2, 3, 4, 5, 7]
    records = pre_eval(dataset, [predictions[i] for i in kept], kept)
    found = evaluate(dataset, records, ['mIoU'], kept)
    assert [part['images'] for part in found['data_sets']] == [5, 1]
    last = dataset.datasets[1]
    assert found['metric']['1_mIoU'] == last.evaluate(last.pre_eval(predictions[7:8], [1]))['mIoU']
    found = evaluate(dataset, records[:5], ['mIoU'], kept[:5])
    assert found['data_sets'][1]['images'] == 0 and '1_mIoU' not in found['metric']


def test_images_are_tested_once(shared_data, caplog):
    caplog.set_level(logging.WARNING)
    logging.getLogger('mmseg').propagate = True
    dataset = build_test_dataset(repeated([plain(shared_data), plain(shared_data, 'validation')]))
    assert isinstance(dataset, ConcatTestDataset) and len(dataset) == 9
    assert 'RepeatDataset in data.val or data.test: each image is tested once' in caplog.text
    nested = build_test_dataset([plain(shared_data), NESTINGS['lists of folders'].of(
        plain(shared_data))])
    assert [len(part) for part in nested.datasets] == [6, 6, 3]
    with pytest.raises(InputError, match='MultiImageMixDataset in data.val or data.test makes'):
        build_test_dataset(mixed(plain(shared_data)))


def test_classes_of_data_sets_that_are_tested_together(own_data, caplog):
    def custom(*classes):
        return dict(plain(own_data), type='CustomDataset', img_suffix='.jpg', classes=classes,
                    palette=[[0, 0, 0]] * len(classes))

    with pytest.raises(InputError, match='images/training has 2 classes, .*ing 3: set classes'):
        build_test_dataset([custom('a', 'b'), custom('a', 'b', 'c')])
    caplog.set_level(logging.WARNING)
    logging.getLogger('mmseg').propagate = True
    assert build_test_dataset([custom('a', 'b'), custom('A ', 'c')]).CLASSES == ['a', 'b']
    assert "class 1 is 'b' in" in caplog.text and "and 'c' in" in caplog.text


def test_cityscapes_is_among_them(own_data):
    pair = dict(plain(own_data), type='CityscapesDataset', img_suffix='.jpg', seg_map_suffix='.png')
    dataset = build_test_dataset([pair, pair])  # which mmseg refuses
    results = dataset.pre_eval(predictions_of(dataset), list(range(12)))
    assert {'mIoU', '0_mIoU', '1_mIoU'} <= dataset.evaluate(results, metric='mIoU').keys()
