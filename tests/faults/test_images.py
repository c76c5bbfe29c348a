"""Broken and unusual images and labels, trained on and shown."""
import io
import os
import random
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.data import SMALL_LINEAR, draw_data, write_config
from helpers.faults import Case, Outcome, damaged
from helpers.zygote import Zygote
from PIL import Image

pytestmark = pytest.mark.slow
IMAGE = 'images/training/ADE_train_00000001.jpg'
LABEL = 'annotations/training/ADE_train_00000001.png'
RUN = SMALL_LINEAR + """
runner = dict(max_iters=2)
evaluation = dict(interval=100)
"""


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    """Two training images, both of which are in each step, and one to validate."""
    return draw_data(tmp_path_factory.mktemp('data'), train=2, val=1)


@pytest.fixture(scope='module')
def checkpoint(data, tmp_path_factory) -> Path:
    folder, zygote = tmp_path_factory.mktemp('run'), Zygote()
    zygote.train(write_config(folder / 'config.py', data, extra=RUN), '--work-dir', folder)
    zygote.close()
    return folder / 'iter_2.pth'


def trains(data: Path, name: str, content: bytes):
    def make(folder: Path) -> list:
        copy = folder / 'ADEChallengeData2016'
        shutil.copytree(data, copy)
        (copy / name).write_bytes(content)
        return ['train.py', write_config(folder / 'config.py', copy, extra=RUN), '--work-dir',
                folder / 'run']
    return make


def encoded(image: Image.Image, kind: str = 'PNG', **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bomb(width: int = 60000, height: int = 60000) -> bytes:
    """A PNG of a few bytes that claims to be large."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack(
            '>I', zlib.crc32(kind + data))
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack(
        '>IIBBBBB', width, height, 8, 0, 0, 0, 0)) + chunk(b'IDAT', zlib.compress(bytes(1000)))
        + chunk(b'IEND', b''))


def same_labels(data: Path):
    expected = np.asarray(Image.open(data / LABEL))

    def check(outcome: Outcome) -> str | None:
        """A label that is trained on is the one that was drawn, says another decoder."""
        try:
            found = np.asarray(Image.open(outcome.folder / 'ADEChallengeData2016' / LABEL))
        except Exception:
            return 'trained on a label that cannot be decoded'
        return None if np.array_equal(found, expected) else 'trained on another label'
    return check


def test_damaged_labels(data, assert_right):
    content, rng = (data / LABEL).read_bytes(), random.Random(0)
    check = same_labels(data)
    assert_right([Case('label', trains(data, LABEL, content), check, must_pass=True),
                  *(Case(f'label: {what}', trains(data, LABEL, bad), check)
                    for _ in range(2) for what, bad in damaged(content, rng))])


def test_damaged_images(data, assert_right):
    """A flipped bit in a JPEG is a picture, too: that it ends well is all that can be asked."""
    content, rng = (data / IMAGE).read_bytes(), random.Random(0)
    assert_right([Case(f'image: {what}', trains(data, IMAGE, bad))
                  for what, bad in damaged(content, rng)])


def test_unusual_labels(data, assert_right):
    stored = np.asarray(Image.open(data / LABEL))
    height, width = stored.shape
    picture = Image.fromarray(stored)
    wrong = {
        'colours': encoded(picture.convert('RGB')), 'RGBA': encoded(picture.convert('RGBA')),
        '16 bits': encoded(Image.fromarray(stored.astype(np.uint16))),
        '32 bits': encoded(Image.fromarray(stored.astype(np.int32)), 'TIFF'),
        'a JPEG': encoded(picture, 'JPEG'), 'beyond the classes': encoded(
            Image.fromarray(np.where(stored == 1, 200, stored).astype(np.uint8))),
        'smaller': encoded(picture.crop((0, 0, width - 1, height))),
        'larger': encoded(picture.resize((width + 1, height))),
        'turned': encoded(picture.transpose(Image.Transpose.ROTATE_90).resize((height, width))),
        'large by its header': bomb(), 'floats': encoded(
            Image.fromarray(stored.astype(np.float32)), 'TIFF'),
    }
    right = {
        'a palette': palette(stored),
        'interlaced by columns': encoded(picture, 'PNG', optimize=True),
        'grey TIFF': encoded(picture, 'TIFF'), 'BMP': encoded(picture, 'BMP'),
    }
    assert_right([Case(f'label: {what}', trains(data, LABEL, content), must_fail=True)
                  for what, content in wrong.items()]
                 + [Case(f'label: {what}', trains(data, LABEL, content), same_labels(data),
                         must_pass=what == 'a palette') for what, content in right.items()])


def palette(stored: np.ndarray) -> bytes:
    """The same numbers, shown in colours that are far from them."""
    picture = Image.new('P', stored.shape[::-1])
    picture.putpalette([(7 * i + 3 * j) % 256 for i in range(256) for j in range(3)])
    picture.putdata(stored.ravel().tolist())
    return encoded(picture)


def test_all_labels_of_a_run_say_nothing(data, assert_right):
    """Masks of 0 and 255, and labels that are all ignored."""
    def make(change):
        def make(folder):
            copy = folder / 'ADEChallengeData2016'
            shutil.copytree(data, copy)
            for path in (copy / 'annotations').rglob('*.png'):
                Image.fromarray(change(np.asarray(Image.open(path))).astype(np.uint8)).save(path)
            return ['train.py', write_config(folder / 'config.py', copy, extra=RUN), '--work-dir',
                    folder / 'run']
        return make
    assert_right([Case('labels: 0 and 255', make(lambda a: np.where(a > 1, 255, 0)),
                       must_fail=True),
                  Case('labels: all ignored', make(np.zeros_like), must_fail=True),
                  Case('labels: all 255', make(lambda a: np.full_like(a, 255)), must_fail=True)])


def test_unusual_images(data, checkpoint, assert_right):
    picture = Image.open(data / IMAGE).convert('RGB')
    size = picture.size
    grey = picture.convert('L')
    exif = Image.Exif()
    exif[0x0112] = 6
    contents = {
        'grey': (encoded(grey, 'JPEG'), True), 'CMYK': (encoded(picture.convert('CMYK'), 'JPEG'),
                                                        True),
        'RGBA': (encoded(picture.convert('RGBA')), True), 'grey with alpha': (
            encoded(grey.convert('LA')), True), 'palette': (encoded(picture.convert('P')), True),
        '1 bit': (encoded(grey.convert('1')), True), '16 bits': (encoded(Image.fromarray(
            np.asarray(grey).astype(np.uint16) * 257)), True),
        'progressive': (encoded(picture, 'JPEG', progressive=True), True),
        'GIF': (encoded(picture.convert('P'), 'GIF'), False),
        'WebP': (encoded(picture, 'WEBP'), True), 'TIFF': (encoded(picture, 'TIFF'), True),
        'floats': (encoded(Image.fromarray(np.asarray(grey).astype(np.float32)), 'TIFF'), False),
        'turned by EXIF': (encoded(picture, 'JPEG', exif=exif.tobytes()), False),
        'damaged EXIF': (encoded(picture, 'JPEG', exif=b'Exif\0\0' + os.urandom(50)), False),
        'damaged profile': (encoded(picture, 'JPEG', icc_profile=os.urandom(100)), True),
        'another size': (encoded(picture.resize((size[0] + 3, size[1])), 'JPEG'), False),
        'large by its header': (bomb(), False), 'no pixels': (bomb(0, 0), False),
        'SVG': (b'<svg xmlns="http://www.w3.org/2000/svg"/>', False),
        'PDF': (b'%PDF-1.4\n', False), 'a program': (b'#!/bin/sh\ntouch canary\n', False),
    }

    def shown(content):
        def make(folder):
            (folder / 'images').mkdir()
            (folder / 'images' / 'a.jpg').write_bytes(content)
            return ['image_demo.py', folder / 'images', checkpoint.parent / 'config.py', checkpoint,
                    '--out', folder / 'out']
        return make
    assert_right([Case(f'image: {what}', trains(data, IMAGE, content), must_pass=right)
                  for what, (content, right) in contents.items()]
                 + [Case(f'shown: {what}', shown(content), must_pass=right)
                    for what, (content, right) in contents.items()])


def test_tiny_and_long_images(data, checkpoint, assert_right):
    sizes = [(1, 1), (1, 100), (100, 1), (2, 3), (13, 13), (57, 56), (3, 4000), (4000, 3)]

    def trains_on(size, every):
        def make(folder):
            copy = folder / 'ADEChallengeData2016'
            shutil.copytree(data, copy)
            for i in (1, 2) if every else (1,):
                Image.new('RGB', size, (9, 99, 200)).save(
                    copy / f'images/training/ADE_train_{i:08}.jpg')
                Image.new('L', size, 3).save(copy / f'annotations/training/ADE_train_{i:08}.png')
            return ['train.py', write_config(folder / 'config.py', copy, extra=RUN), '--work-dir',
                    folder / 'run']
        return make

    def shows(size):
        def make(folder):
            Image.new('RGB', size, (9, 99, 200)).save(folder / 'a.png')
            return ['image_demo.py', folder / 'a.png', checkpoint.parent / 'config.py', checkpoint,
                    '--out', folder / 'out']
        return make
    # 4000 pixels become 224, and 3 become none: one line is due.
    assert_right([Case(f'images of {size}', trains_on(size, every),
                       must_pass=not every and max(size) < 4000)
                  for size in sizes for every in (False, True)]
                 + [Case(f'shown: an image of {size}', shows(size)) for size in sizes
                    if max(size) < 4000])  # 4000 become 75000, which takes memory


def test_folders_that_are_no_data(data, assert_right):
    def change(action):
        def make(folder):
            copy = folder / 'ADEChallengeData2016'
            shutil.copytree(data, copy)
            action(copy)
            return ['train.py', write_config(folder / 'config.py', copy, extra=RUN), '--work-dir',
                    folder / 'run']
        return make

    def replace(name, action):
        def act(copy):
            (copy / name).unlink()
            action(copy / name)
        return act
    def named(outcome):
        return None if Path(IMAGE).name in outcome.text else 'an image is left out in silence'
    fail, passes = dict(must_fail=True), dict(must_pass=True)
    assert_right([
        Case('no label', change(lambda copy: (copy / LABEL).unlink()), **fail),
        Case('no image', change(lambda copy: (copy / IMAGE).unlink()), **passes),
        Case('a folder for an image', change(replace(IMAGE, Path.mkdir)), named),
        Case('a folder for a label', change(replace(LABEL, Path.mkdir)), **fail),
        Case('a link to nothing', change(replace(IMAGE, lambda p: p.symlink_to('none'))), named),
        Case('a link to itself', change(replace(LABEL, lambda p: p.symlink_to(p.name))), **fail),
        Case('a pipe', change(replace(IMAGE, os.mkfifo)), named),
        Case('zeros without an end', change(replace(
            IMAGE, lambda p: p.symlink_to('/dev/zero'))), named),
        Case('no images', change(lambda copy: shutil.rmtree(copy / 'images')), **fail),
        Case('no labels', change(lambda copy: shutil.rmtree(copy / 'annotations')), **fail),
        Case('labels from elsewhere', change(lambda copy: shutil.move(
            copy / LABEL, copy / 'annotations/training/b.png')), **fail),
        Case('remains of other programs', change(lambda copy: [
            (copy / 'images/training' / name).write_bytes(b'x')
            for name in ('._ADE_train_00000001.jpg', 'Thumbs.db', '.DS_Store')])),
    ])
