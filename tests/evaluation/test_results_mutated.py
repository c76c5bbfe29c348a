"""Damaged results: each ends in a page, or in one line that names the file."""
import io
import json
import os
import zipfile
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.mutations import mutations
from mmcv import Config

from mmseg_custom.errors import InputError
from mmseg_custom.evaluation import read_results, write_results
from mmseg_custom.evaluation.per_image import PerImage
from mmseg_custom.evaluation.record import measure
from mmseg_custom.visualization.report import write_report

K = 3


@pytest.fixture
def results(tmp_path):
    """Path of results of two data sets, of one image each."""
    rng = np.random.default_rng(0)
    records = [measure(*rng.integers(0, K, (2, 20, 30)), K, f'{i}.jpg', boundary=True)
               for i in range(2)]
    data = SimpleNamespace(CLASSES=['a', 'b', 'c'], PALETTE=[[1, 2, 3]] * K, img_dir='/nowhere')
    interval = dict(low=.1, high=.2)
    write_results(
        str(tmp_path / 'eval_1.json'), dict(
            metric={'mIoU': .3, 'IoU.a': .2, 'mBIoU': float('nan'), '0_mIoU': .2, '1_mIoU': .1},
            interval=interval,
            data_sets=[dict(image_folder='/x', images=1, interval=interval)] * 2),
        records, data, Config(dict(a=1)), config='a.py', checkpoint='none', device='cpu',
        seconds=1., memory=dict(host=3), skipped=['x.jpg'])
    return tmp_path / 'eval_1.json'


def outcome(path, compared=False, images=1) -> str | None:
    """Returns the one line of an error, or None where a page was written."""
    try:
        found = read_results(str(path))
        for other in (None, found) if compared else (None,):
            write_report(str(path.with_suffix('.html')), found, other, images)
        return None
    except InputError as error:
        assert '\n' not in str(error) and str(path.parent) in str(error), error
        return str(error)


def test_every_place_of_the_json_with_what_does_not_belong_there(results):
    content = json.loads(results.read_text())
    read = refused = 0
    # Every third: the values of a place are 18, so that the next places get the others.
    for name, mutated in islice(mutations(content, skipped=('settings',)), 0, None, 3):
        results.write_text(json.dumps(mutated))
        line = outcome(results, images=0)
        read, refused = read + (line is None), refused + (line is not None)
        assert line is None or len(line) < 500, name
    assert read > 50 and refused > 200


@pytest.mark.parametrize('change, message', [
    (lambda run: run.update(metric=3), 'metric: 3, expected a mapping (mIoU); expected the eval_'),
    (lambda run: run['metric'].update(mIoU='x'), "metric.mIoU: 'x', expected a number"),
    (lambda run: run['palette'].pop(), 'has 3 classes and 2 colours'),
    (lambda run: run.update(images=3), 'is of 3 images, eval_1.npz of 2'),
    (lambda run: run.update(per_image='../eval_1.npz'), 'expected the name of a file beside it'),
    (lambda run: run['interval'].pop('low'), 'interval.low is missing'),
    (lambda run: run['data_sets'][0].update(images='1'), "data_sets[0].images: '1', expected a w"),
    (lambda run: run['metric'].update(mIoU=None), None),
    (lambda run: [run['metric'].update(mIoU=None), run.pop('interval'), run.pop('time')], None),
    (lambda run: run.update(more=dict(of='later versions')), None)])
def test_messages_name_place_and_way_out(results, change, message):
    run = json.loads(results.read_text())
    change(run)
    results.write_text(json.dumps(run))
    line = outcome(results, compared=True)
    assert line is None if message is None else message in line


def test_a_missing_value_is_a_dash(results):
    run = json.loads(results.read_text())
    run['metric']['mIoU'] = run['interval']['low'] = None
    results.write_text(json.dumps(run))
    assert outcome(results) is None
    assert '<dd>–</dd>' in results.with_suffix('.html').read_text()


def test_text_that_is_no_json_of_ours(results):
    text = results.read_text()
    assert 'is no JSON file' in outcome_of(results, '[' * 100_000)
    assert "'images' is there twice" in outcome_of(results, text.replace(
        '"images": 2,', '"images": 2, "images": 1,', 1))
    assert 'is no JSON file' in outcome_of(results, text.replace('0.3', '9' * 5000, 1))
    assert outcome_of(results, '\ufeff' + text) is None
    assert outcome_of(results, text.replace('0.3', 'NaN', 1)) is None
    assert outcome_of(results, text.replace('a.py', '\\ud800.py')) is None
    for end in range(0, len(text) - 1, len(text) // 40):
        assert outcome_of(results, text[:end]) is not None
    results.write_bytes(b'\xff\xfe' + text.encode())
    assert 'is no JSON file' in outcome(results)


def outcome_of(path, text: str) -> str | None:
    path.write_text(text, encoding='utf-8')
    return outcome(path)


def test_every_array_with_what_does_not_belong_there(results):
    path = results.with_suffix('.npz')
    arrays = dict(np.load(path))
    assert len(arrays) == len(PerImage.__dataclass_fields__)
    refused = 0
    for name, array in arrays.items():
        for changed in (
                array[:-1], array[..., None], array.astype('U3'), array[:0],
                np.full_like(array, 77) if array.dtype.kind != 'U' else array,
                -array.astype(int) - 1 if array.dtype.kind != 'U' else array, np.array(5)):
            np.savez(path, **{**arrays, name: changed})
            refused += outcome(results) is not None
        np.savez(path, **{key: value for key, value in arrays.items() if key != name})
        assert 'cannot be read' in outcome(results)
    assert refused > 40


def test_files_of_arrays_that_are_damaged(results):
    path = results.with_suffix('.npz')
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(80):
        broken = bytearray(data)
        broken[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        outcome(results)
    for end in range(0, len(data), len(data) // 30):
        path.write_bytes(data[:end])
        assert outcome(results) is not None
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, dict(descr='<i8', fortran_order=False,
                                                      shape=(10**15,)))
    path.write_bytes(data)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(f'{path}.new', 'w') as new:
        for name in old.namelist():
            new.writestr(name, header.getvalue() if name == 'pixels.npy' else old.read(name))
    os.replace(f'{path}.new', path)
    assert 'cannot be read' in outcome(results)
