"""Data sets that a YAML file describes: what the file may say, and what a run reads."""
import datetime
import logging
from itertools import islice

import numpy as np
import pytest
import yaml
from helpers.mutations import ODD, mutations
from mmseg.datasets import build_dataset
from PIL import Image

from mmseg_custom.datasets.description import read_description
from mmseg_custom.datasets.prepare import PrepareOptions, prepare_own
from mmseg_custom.errors import InputError

GOOD = dict(classes={'sea': [0, 0, 200], 'land': [0, 200, 0]},
            train=dict(images='images', labels='labels'))


def write(folder, **changes) -> str:
    content = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    path = folder / 'dataset.yaml'
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


@pytest.fixture
def own(tmp_path):
    """Three samples of sizes of their own."""
    for name in ('images', 'labels', 'coloured'):
        (tmp_path / name).mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        labels = rng.integers(0, 2, (40 + i, 50)).astype(np.uint8)
        labels[:3] = 255
        Image.fromarray(np.zeros((40 + i, 50, 3), np.uint8)).save(tmp_path / f'images/{i}.jpg')
        Image.fromarray(labels).save(tmp_path / f'labels/{i}.png')
        palette = np.full((256, 3), 255, np.uint8)
        palette[:2] = list(GOOD['classes'].values())
        Image.fromarray(palette[labels]).save(tmp_path / f'coloured/{i}.png')
    return tmp_path


def dataset(path, **options):
    steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    return build_dataset(dict(type='DescribedDataset', description=path, part='train',
                              pipeline=steps, **options))


def test_a_data_set_is_what_its_file_says(own):
    found = dataset(write(own))
    assert found.CLASSES == ['sea', 'land'] and found.PALETTE == [[0, 0, 200], [0, 200, 0]]
    labels = found[2]['gt_semantic_seg']
    assert labels.shape == (42, 50) and np.unique(labels).tolist() == [0, 1, 255]
    assert len(dataset(write(own), few_shot=dict(fraction='1/3'))) == 1
    areas = found.pre_eval(np.zeros((42, 50), int), 2)
    assert areas[0][3].tolist() == [float((labels == 0).sum()), float((labels == 1).sum())]


@pytest.mark.parametrize('name, change, message', [
    ('labels/1.png', lambda path: path.unlink(), '1.jpg has no label'),
    ('images/1.jpg', lambda path: path.write_bytes(b''), 'image .*1.jpg cannot be decoded'),
    ('labels/1.png', lambda path: Image.new('L', (50, 41), 2).save(path), 'holds 2 .2050 pix'),
    ('labels/1.png', lambda path: Image.new('L', (50, 40)).save(path), 'its label 40 x 50'),
    ('labels/1.png', lambda path: Image.new('RGB', (50, 41)).save(path), 'expected one channel'),
    ('labels/1.png', lambda path: Image.new('I;16', (50, 41)).save(path), 'has 16 bits a pixel')])
def test_it_is_checked_as_ade20k_is(own, name, change, message):
    change(own / name)
    with pytest.raises(InputError, match=message):
        for i in range(3):
            dataset(write(own))[i]


@pytest.mark.parametrize('changes, message', [
    (dict(classes=None), 'classes: expected 2 to 255 names'),
    (dict(classes=['sea', 'land']), 'classes: expected 2 to 255 names with their colours'),
    (dict(classes={f'c{i}': [i, 0, 0] for i in range(256)}), 'expected 2 to 255 names'),
    (dict(classes={'sea': [0, 0, 300], 'land': [0, 200, 0]}), r'sea: \[0, 0, 300\], expected a c'),
    (dict(classes={'sea': 'blue', 'land': [0, 200, 0]}), "sea: 'blue', expected a colour"),
    (dict(classes={'sea': [1, 1, 1], 'land': [1, 1, 1]}), 'sea and land have the same colour'),
    (dict(classes={True: [1, 1, 1], 'land': [2, 2, 2]}), 'True is no name to YAML: put it into'),
    (dict(train=None), 'expected train, val or both'),
    (dict(train=dict(images='images')), 'train.labels is missing'),
    (dict(train=dict(images=3, labels='labels')), 'train.images: 3, expected a folder'),
    (dict(test=dict(images='a', coloured='c')), 'test: coloured needs labels'),
    (dict(tain=dict(images='a')), "'tain' is not known: expected classes, ignored"),
    (dict(ignored=7), 'ignored: 7, expected a list of colours'),
    (dict(label_suffix='png'), "label_suffix: 'png', expected an ending such as .png")])
def test_descriptions_that_mean_nothing(tmp_path, changes, message):
    with pytest.raises(InputError, match=f'dataset.yaml: .*{message}|dataset.yaml: {message}'):
        read_description(write(tmp_path, **changes))


def test_files_that_are_no_description(tmp_path):
    path = tmp_path / 'a.yaml'
    with pytest.raises(InputError, match='a.yaml does not exist.*expected the YAML'):
        read_description(path)
    path.write_text('classes: [')
    with pytest.raises(InputError, match='a.yaml is no YAML: while parsing'):
        read_description(path)
    path.write_text('classes:\n  sea: [1, 1, 1]\n  sea: [2, 2, 2]\n  land: [3, 3, 3]\n'
                    'train: {images: a, labels: b}\n')
    with pytest.raises(InputError, match="a.yaml, line 3: 'sea' is there twice"):
        read_description(path)


def test_every_place_of_the_file_with_what_does_not_belong_there(tmp_path):
    content = dict(GOOD, ignored=[[255, 255, 255], [0, 0, 0]], image_suffix='.jpg',
                   test=dict(images='a', labels='b', coloured='c'))
    odd = [*ODD, datetime.date(2026, 1, 1), {3: 4}, [[1, 2, 3]], {datetime.date(2026, 1, 1): 1}]
    path, read, refused = tmp_path / 'a.yaml', 0, 0
    for name, changed in islice(mutations(content, values=odd), 0, None, 3):
        path.write_text(yaml.safe_dump(changed, sort_keys=False))
        line = outcome(path)
        read, refused = read + (line is None), refused + (line is not None)
        assert line is None or len(line) < 300 and '\n' not in line, name
    assert read > 5 and refused > 130


@pytest.mark.parametrize('text, message', [
    ('[' * 1_500, 'a.yaml is no YAML: maximum recursion depth'),
    ('a: !!timestamp x', 'a.yaml is no YAML'), ('a: !!int x', 'a.yaml is no YAML'),
    ('a: !!bool x', 'a.yaml is no YAML'), ('a: 2026-99-99', 'a.yaml is no YAML: month must be'),
    ('a: ' + '9' * 5000, 'a.yaml is no YAML: Exceeds the limit'),
    ('!!python/object/apply:os.system [exit]', 'a.yaml is no YAML: could not determine'),
    ('a: &a [*a]', "'a' is not known"), ('? [a]\n: b', 'a.yaml is no YAML'), ('- a', 'the keys'),
    ('', 'expected the keys'), ('#' * 1_000_001, 'more than 1,000,000 characters'),
    ('train: {images: a, labels: b}\nval: &v {images: a}\ntrain: 3', "line 3: 'train' is there t"),
    ('val: {images: a, images: b}', "a.yaml, line 1: 'images' is there twice"),
    ('a: &a {x: 1}\nb: {<<: *a}', 'a.yaml, line 2: << is not read: write the keys'),
    ('\n'.join([f'a0: &a0 [{"x, " * 9}x]', *(
        f'a{i + 1}: &a{i + 1} [{f"*a{i}, " * 9}*a{i}]' for i in range(30))]), "'a0' is not known")])
def test_text_that_is_no_description(tmp_path, text, message):
    (tmp_path / 'a.yaml').write_text(text)
    assert message in outcome(tmp_path / 'a.yaml')


def test_text_that_is_cut_short_or_damaged(tmp_path):
    path = tmp_path / 'a.yaml'
    text = yaml.safe_dump(dict(GOOD, val=GOOD['train']), sort_keys=False)
    path.write_text('\ufeff' + text)
    assert outcome(path) is None
    for end in range(len(text)):
        path.write_text(text[:end])
        outcome(path)
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(text.encode())
        data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data)
        outcome(path)
    path.write_bytes(text.encode('utf-16'))
    assert 'a.yaml is no YAML' in outcome(path)


def outcome(path) -> str | None:
    """Returns the one line of an error that names the file, or None."""
    try:
        read_description(path)
        return None
    except InputError as error:
        assert str(error).startswith(str(path)) and '\n' not in str(error), error
        return str(error)


def test_options_that_the_file_decides(own):
    with pytest.raises(InputError, match='classes is what .*dataset.yaml says; leave it out'):
        dataset(write(own), classes=['a', 'b'])
    with pytest.raises(InputError, match="dataset.yaml has no 'val': it describes train"):
        build_dataset(dict(type='DescribedDataset', description=write(own), part='val',
                           pipeline=[]))


def test_labels_are_made_of_pictures_once(own, caplog):
    caplog.set_level(logging.CRITICAL)
    parts = dict(images='images', labels='made', coloured='coloured')
    path = write(own, train=parts, ignored=[255, 255, 255])
    first = prepare_own(path, PrepareOptions(workers=2))
    for i in range(3):
        made = np.array(Image.open(own / f'made/{i}.png'))
        assert (made == np.array(Image.open(own / f'labels/{i}.png'))).all()
    times = [file.stat().st_mtime_ns for file in sorted((own / 'made').iterdir())]
    assert prepare_own(path, PrepareOptions()) == first
    assert times == [file.stat().st_mtime_ns for file in sorted((own / 'made').iterdir())]
    with pytest.raises(InputError, match=r'3 of 3 files failed.*\d.png has 150 pixels in the '
                       r'colour \[255, 255, 255\], which is of no class'):
        prepare_own(write(own, train=dict(parts, labels='again')), PrepareOptions())
    (own / 'coloured/1.png').write_bytes(b'no image')
    with pytest.raises(InputError, match=r'1 of 3 files failed, the others are done; the f.*'
                       'coloured/1.png cannot be decoded'):
        prepare_own(write(own, train=dict(parts, labels='third'), ignored=[255, 255, 255]),
                    PrepareOptions())
    assert sorted(path.name for path in (own / 'third').iterdir()) == ['0.png', '2.png']


def test_faults_are_listed_beside_the_file(own, caplog):
    caplog.set_level(logging.CRITICAL)
    Image.fromarray(np.full((41, 50), 2, np.uint8)).save(own / 'labels/1.png')
    (own / 'images/2.jpg').rename(own / 'images/2.JPG')
    with pytest.raises(InputError, match='2 faults, listed in .*prepare_data.py custom .*yaml'):
        prepare_own(write(own), PrepareOptions())
    lines = (own / 'dataset.faults.txt').read_text()
    assert '1.png holds 2 (2050 pixels): expected 0..1' in lines
    assert '2.png has no image' in lines
