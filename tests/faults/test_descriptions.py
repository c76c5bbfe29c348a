"""Descriptions of data sets with a wrong value at each of their keys, and YAML that is none."""
import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.faults import Case, damaged
from helpers.values import VALUES, changed, name_of, paths
from PIL import Image

pytestmark = pytest.mark.slow
A_PATH = 8
GOOD = dict(classes=dict(background=[90, 90, 90], square=[200, 60, 40], disc=[40, 90, 200]),
            train=dict(images='images/train', labels='labels/train'),
            val=dict(images='images/val', labels='labels/val'), image_suffix='.jpg',
            label_suffix='.png', ignored=[[1, 2, 3]])


def prepares(text: str | bytes):
    def make(folder: Path) -> list:
        for split in ('train', 'val'):
            images, labels = folder / 'images' / split, folder / 'labels' / split
            images.mkdir(parents=True), labels.mkdir(parents=True)
            Image.new('RGB', (40, 30)).save(images / 'a.jpg')
            Image.fromarray(np.arange(1200).reshape(30, 40).astype(np.uint8) % 3).save(
                labels / 'a.png')
        (folder / 'data.yaml').write_bytes(text if isinstance(text, bytes) else text.encode())
        return ['prepare_data.py', 'custom', folder / 'data.yaml', '--workers', 1]
    return make


def dump(content: object) -> str:
    return yaml.safe_dump(content, sort_keys=False)


def test_the_description_itself(assert_right):
    assert_right([Case('YAML', prepares(dump(GOOD)), must_pass=True)])


def test_each_key_with_wrong_values(assert_right):
    rng = random.Random(0)
    assert_right([Case(f'YAML: {name_of(path, value)}', prepares(dump(changed(GOOD, path, value))))
                  for path in paths(GOOD) for value in rng.sample(VALUES, A_PATH)])


def test_damaged_files(assert_right):
    assert_right([Case(f'YAML: {what}', prepares(content)) for what, content in damaged(
        dump(GOOD).encode(), random.Random(0))])


def test_yaml_of_other_kinds(assert_right):
    text, deep = dump(GOOD), 100000
    laughs = '\n'.join([
        'a: &a [x, x, x, x, x, x, x, x, x]',
        *(f'{b}: &{b} [{", ".join([f"*{a}"] * 9)}]' for a, b in zip('abcdefgh', 'bcdefghi'))])
    fail = {
        'classes twice': text + 'classes:\n  a: [1, 2, 3]\n  b: [2, 3, 4]\n',
        'train twice': text + 'train:\n  images: images/val\n  labels: labels/val\n',
        'a class twice': text.replace('square:', 'disc:'),
        'images twice': text.replace('labels: labels/train', 'images: labels/train\n  labels: x'),
        'a date for a class': text.replace('disc:', '2024-01-01:'),
        'no as a class': text.replace('disc:', 'no:'), 'null as a class': text.replace(
            'disc:', 'null:'), 'a number for a class': text.replace('disc:', '3:'),
        'a list for a class': text.replace('disc:', '? [1, 2]\n  :'),
        'deep lists': 'classes: ' + '[' * deep, 'deep and closed': 'classes: ' + '[' * deep
        + ']' * deep, 'deep maps': 'classes: ' + '{a: ' * deep, 'many aliases': laughs,
        'an anchor of itself': 'classes: &a [*a]', 'an object': 'classes: !!python/object/apply:'
        'os.system ["touch canary"]', 'a name': 'classes: !!python/name:os.system',
        'a tag': 'classes: !x 3', 'a long number': text.replace('90', '9' * 5000, 1),
        'octal': text.replace('90', '0o7', 1).replace(
            '[40', '[400'), 'several documents': text + '---\n' + text, 'tabs': text.replace(
            '  ', '\t'), 'a folder outside': text.replace('images/train', '/etc'),
        'a folder above': text.replace('images/train', '../../..'),
        'a folder with a new line': text.replace('images/train', '"images\\ntrain"'),
        'a folder with a null byte': text.replace('images/train', '"a\\0b"'),
        'a suffix of all': text.replace('image_suffix: .jpg', 'image_suffix: "."'),
        'a suffix with a folder': text.replace('image_suffix: .jpg', 'image_suffix: /../.jpg'),
        'empty': '', 'a comment': '# nothing', 'a merge of text': '<<: x\n' + text,
    }
    either = {
        'a byte order mark': '\ufeff' + text, 'ends of line of Windows': text.replace('\n', '\r\n'),
        'UTF-16': text.encode('utf-16'), 'latin-1': b'# \xe4\n' + text.encode(),
        'names of other scripts': text.replace('disc', '\u5929\u7a7a'),
        'sexagesimal': text.replace('90', '1:30', 1),
        'a merge': 'x: &x {a: 1}\n' + text, 'quotes in a name': text.replace('disc', "'a''b'"),
    }
    assert_right([Case(f'YAML: {name}', prepares(content), must_fail=True)
                  for name, content in fail.items()]
                 + [Case(f'YAML: {name}', prepares(content)) for name, content in either.items()])
