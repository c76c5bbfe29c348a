"""Data sets in data sets: ConcatDataset, RepeatDataset, lists, and each in the others."""
import copy

import pytest
from helpers.data import write_config
from helpers.nesting import FOLDERS, NESTINGS, mixed, repeated, write_splits
from mmcv import Config

from mmseg_custom.datasets.build import build_test_dataset, build_train_dataset
from mmseg_custom.datasets.few_shot.coverage import report
from mmseg_custom.datasets.nesting import (
    few_shot_lists,
    file_paths,
    image_names,
    innermost_datasets,
    innermost_options,
    named_pipelines,
)
from mmseg_custom.doctor.data import check_data
from mmseg_custom.engine.config import load_config
from mmseg_custom.errors import InputError

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)]


def plain(root, folder='training', **options) -> dict:
    return dict(type='ADE20KDataset', data_root=str(root), pipeline=PIPELINE,
                img_dir=f'images/{folder}', ann_dir=f'annotations/{folder}', **options)


@pytest.fixture(params=NESTINGS)
def nested(request, own_data):
    """(config, names of each innermost data set, samples in all)."""
    write_splits(own_data)
    nesting = NESTINGS[request.param]
    return nesting.of(plain(own_data)), nesting.names, nesting.length


def test_the_walk_over_data_sets(nested, own_data):
    options, names, length = nested
    before = copy.deepcopy(options)
    dataset = build_train_dataset(options)
    assert options == before  # a config is read, and not changed
    assert len(dataset) == length
    inner = innermost_datasets(dataset)
    assert [[info['filename'] for info in part.img_infos] for part in inner] == [
        [f'{name}.jpg' for name in part] for part in names]
    assert image_names(dataset) == [f'{name}.jpg' for part in names for name in part]
    paths = file_paths(dataset)
    assert len(paths) == 2 * len(image_names(dataset))
    assert paths[:2] == [f'{own_data}/images/training/{names[0][0]}.jpg',
                         f'{own_data}/annotations/training/{names[0][0]}.png']
    assert dataset[length - 1]['gt_semantic_seg'].ndim == 2


def test_options_are_those_of_the_innermost_data_sets(nested):
    options, names, _ = nested
    inner = innermost_options(options)
    assert [[path.rpartition('/')[2].removesuffix('.jpg') for path in image_names(
        build_train_dataset(part))] for part in inner] == names
    assert all(isinstance(part['img_dir'], str) for part in inner)
    assert innermost_options(Config(dict(train=options)).train) == inner


def test_a_config_of_type_concat_dataset_holds_no_others(own_data):
    options = dict(type='ConcatDataset', datasets=[plain(own_data)])
    with pytest.raises(AttributeError):  # mmseg takes data sets there, and not their configs
        build_train_dataset(options)
    assert innermost_options(options) == [options] and named_pipelines(options) == []


def test_few_shot_options_hold_for_each_data_set(own_data):
    train = plain(own_data, few_shot=dict(fraction='1/3'))
    found = few_shot_lists(build_train_dataset(repeated([{**train, **FOLDERS}, plain(own_data)])))
    assert [(len(one.names), one.total) for one in found] == [(2, 6), (1, 3)]
    assert few_shot_lists(build_train_dataset(plain(own_data))) == []


def test_pipelines_have_the_names_of_their_keys(own_data):
    train = [repeated(plain(own_data)), mixed(plain(own_data), lambda inner: [inner])]
    assert [name for name, _ in named_pipelines(train)] == [
        '0.dataset.pipeline', '1.pipeline', '1.dataset.0.pipeline']
    assert named_pipelines(plain(own_data)) == [('pipeline', PIPELINE)]


@pytest.mark.parametrize('lists', [
    dict(FOLDERS, ann_dir=['annotations/training']), dict(ann_dir=FOLDERS['ann_dir']),
    dict(FOLDERS, split=['a.txt', 'b.txt', 'c.txt'])])
def test_lists_that_do_not_fit_each_other(own_data, lists):
    with pytest.raises(InputError, match='ADE20KDataset: .*ann_dir.* expected lists of one length'):
        innermost_options({**plain(own_data), **lists})


def test_testing_needs_no_labels(own_data):
    (own_data / 'annotations/validation').rename(own_data / 'elsewhere')
    dataset = build_test_dataset([plain(own_data, 'validation'), plain(own_data)])
    assert [part.test_mode for part in innermost_datasets(dataset)] == [True, True]


def test_doctor_checks_each_data_set(nested, own_data, tmp_path):
    options, names, _ = nested
    cfg = load_config(str(write_config(tmp_path / 'config.py', own_data)))
    cfg.data.train, cfg.data.val, cfg.data.test = options, options, None
    findings, figures = check_data(cfg)
    images = sum(map(len, names))
    assert figures['train'] == dict(images=images, decoded=images)
    assert any('read the same folder' in f.message or 'of this name is in' in f.message
               for f in findings)
    last = innermost_datasets(build_train_dataset(options))[-1]
    path = own_data / 'images' / last.img_dir.rpartition('/')[2] / last.img_infos[-1]['filename']
    path.write_bytes(b'')
    assert any(str(path) in f.subjects and 'the file is empty' in f.message
               for f in check_data(cfg)[0])


def test_few_shot_report_takes_one_data_set(own_data):
    [found] = report(repeated(plain(own_data)), ['1/2'], [0])
    assert found.chosen.total == 6
    with pytest.raises(InputError, match='data.train concatenates 2 data sets: expected one'):
        report({**plain(own_data), **FOLDERS}, ['1/2'], [0])
