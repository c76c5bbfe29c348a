"""Metrics equal mmseg's, and files of results are read as they were written."""
import json
import os

import numpy as np
import pytest
from helpers.data import write_config
from helpers.results import dataset_of, guesses, write_some
from mmseg.datasets import CustomDataset

from mmseg_custom.errors import InputError
from mmseg_custom.evaluation import evaluate, pre_eval, read_results
from mmseg_custom.evaluation.metric_names import check_best, check_metrics
from mmseg_custom.evaluation.run_info import describe_checkpoint


@pytest.fixture(scope='module')
def config(shared_data, tmp_path_factory):
    return write_config(tmp_path_factory.mktemp('results') / 'config.py', shared_data)


@pytest.fixture(scope='module')
def written(config):
    return write_some(config, config.parent / 'eval_single_scale_1.json')


def test_metrics_are_those_of_mmseg_and_more(config):
    dataset = dataset_of(config)
    predictions, indices = guesses(dataset, .3), range(len(dataset))
    metrics = ['mIoU', 'mDice', 'mFscore']
    theirs = dataset.evaluate(dataset.pre_eval(predictions, list(indices)), metric=metrics)
    records = pre_eval(dataset, predictions, indices, boundary=True)
    ours = evaluate(dataset, records, [*metrics, 'mBIoU'])
    np.testing.assert_equal({name: ours['metric'][name] for name in theirs}, dict(theirs))
    assert 0 < ours['metric']['mBIoU'] < ours['metric']['mIoU']
    assert ours['metric']['BIoU.wall'] > 0 and np.isnan(ours['metric']['BIoU.flag'])
    assert ours['interval']['low'] < theirs['mIoU'] < ours['interval']['high']


def test_perfect_prediction_has_all_metrics_at_one(config):
    dataset = dataset_of(config)
    records = pre_eval(dataset, guesses(dataset, 0), range(len(dataset)), boundary=True)
    found = evaluate(dataset, records, ['mIoU', 'mBIoU'])['metric']
    assert found['mIoU'] == found['aAcc'] == found['mBIoU'] == 1


def test_data_set_with_metrics_of_its_own_keeps_them(config):
    class Own(CustomDataset):
        def __init__(self):
            pass

        def pre_eval(self, predictions, indices):
            return [('mine', index) for index in indices]

        def evaluate(self, results, metric, **options):
            return dict(mine=len(results))

    records = pre_eval(Own(), [None] * 2, [3, 4])
    assert records == [('mine', 3), ('mine', 4)]
    assert evaluate(Own(), records, ['mine']) == dict(metric=dict(mine=2))


def test_file_is_strict_json_and_describes_the_run(written, config):
    def refuse(word):
        raise AssertionError(f'{word} is no JSON')

    run = json.loads(written.read_text(), parse_constant=refuse)
    assert run['config'] == str(config) and 0 < run['metric']['mIoU'] < 1
    assert run['metric']['IoU.flag'] is None
    assert run['time'] == dict(seconds=1.5, seconds_per_image=.5) and run['images'] == 3
    assert run['peak_memory_bytes'] == dict(host=2**30) and run['skipped'] == ['bad.jpg']
    assert {'torch', 'mmcv', 'mmsegmentation'} <= run['versions'].keys()
    assert run['hardware']['processes'] == 1 and run['settings']['model']['backbone']['depth'] == 6
    assert not list(written.parent.glob('*.part'))


def test_results_are_read_again(written, config):
    results, dataset = read_results(str(written)), dataset_of(config)
    records = pre_eval(dataset, guesses(dataset, .3), range(3), boundary=True)
    intersect, union = results.areas
    for image, record in enumerate(records):
        np.testing.assert_array_equal(intersect[image], record[0])
        np.testing.assert_array_equal(union[image], record[1])
        np.testing.assert_array_equal(results.images.boundary[image], record.boundary)
        np.testing.assert_array_equal(results.images.label_maps(image)[1],
                                      guesses(dataset, .3)[image])
    confusion = results.images.confusion(150)
    np.testing.assert_array_equal(confusion.diagonal(), intersect.sum(0))
    assert results.images.names.tolist() == [info['filename'] for info in dataset.img_infos]


def test_names_in_the_file_are_those_of_earlier_versions(written):
    with np.load(written.with_suffix('.npz')) as arrays:
        assert set(arrays) == {'names', 'ends', 'truth', 'prediction', 'pixels', 'boundary', 'maps',
                               'map_ends'}


def test_newest_results_of_a_work_dir(config, tmp_path):
    for i, name in enumerate(('b', 'a')):
        write_some(config, tmp_path / f'eval_{name}.json', metrics=('mIoU',))
        os.utime(tmp_path / f'eval_{name}.json', (1000 + i, 1000 + i))
    assert read_results(str(tmp_path)).path == str(tmp_path / 'eval_a.json')


@pytest.mark.parametrize('spoil, message', [
    (lambda path: path.unlink(), 'do not exist.*: write them with'),
    (lambda path: path.write_text('{'), 'is no JSON file'),
    (lambda path: path.write_text('{"config": "a.py", "metric": {}}'), 'no metrics of single'),
    (lambda path: path.write_text(path.read_text().replace('"mIoU":', '"mDice":')), 'no mIoU'),
    (lambda path: path.with_suffix('.npz').unlink(), r'\.npz does not exist: it lies beside'),
    (lambda path: path.with_suffix('.npz').write_bytes(b'PK\x03\x04half'), 'cannot be read'),
])
def test_bad_results_are_one_line(config, tmp_path, spoil, message):
    path = write_some(config, tmp_path / 'eval_1.json', metrics=('mIoU',))
    spoil(path)
    with pytest.raises(InputError, match=message) as caught:
        read_results(str(path))
    assert '\n' not in str(caught.value)


def test_work_dir_without_results(tmp_path):
    with pytest.raises(InputError, match='holds no results'):
        read_results(str(tmp_path))


def test_checkpoint_is_described_by_its_hash(tmp_path):
    file, folder = tmp_path / 'a.pth', tmp_path / 'b.dcp'
    file.write_bytes(b'weights')
    folder.mkdir()
    (folder / '.metadata').write_bytes(b'm')
    (folder / '__0_0.distcp').write_bytes(b'part')
    assert describe_checkpoint(str(file))['sha256'].startswith('9a129038')
    found = describe_checkpoint(str(folder))
    assert found['bytes'] == 5 and len(found['sha256']) == 64
    (folder / '__0_0.distcp').write_bytes(b'PART2')
    assert describe_checkpoint(str(folder))['sha256'] != found['sha256']
    assert describe_checkpoint('none') is None


def test_unknown_metrics_are_refused_before_the_run(config):
    dataset = dataset_of(config)
    check_metrics(dataset, ['mIoU', 'mBIoU', 'mDice', 'mFscore'])
    with pytest.raises(InputError, match='--eval bbox: expected some of mIoU, mDice'):
        check_metrics(dataset, ['mIoU', 'bbox'])

    class Own(type(dataset)):
        def pre_eval(self, predictions, indices):
            return []

    dataset.__class__ = Own
    with pytest.raises(InputError, match='--eval mBIoU: Own measures'):
        check_metrics(dataset, ['mBIoU'])


@pytest.mark.parametrize('metrics, best, message', [
    (['mIoU'], 'IoU.wal', "did you mean 'IoU.wall'"), (['mIoU'], 'mDice', 'aAcc, mAcc, mIoU'),
    (['mFscore'], 'IoU.wall', 'mFscore, mPrecision, mRecall, or of a class, as Fscore.wall')])
def test_a_best_metric_that_is_not_measured_is_refused(config, metrics, best, message):
    with pytest.raises(InputError, match=f'^evaluation.save_best={best!r}: metric={metrics[0]} .*'
                                         f'{message}'):
        check_best(dataset_of(config), metrics, best)


@pytest.mark.parametrize('metric', [['mIoU'], ['mDice'], ['mFscore'], ['mBIoU'], ['mIoU', 'mBIoU']])
def test_every_figure_may_be_the_best_one(config, metric):
    dataset = dataset_of(config)
    records = pre_eval(dataset, guesses(dataset, .3), range(len(dataset)), boundary=True)
    for name in evaluate(dataset, records, metric, logger='silent')['metric']:
        check_best(dataset, metric, name)
