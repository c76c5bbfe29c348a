"""Loading, preparing and the doctor have the same faults and notes of images and labels."""
import io
import logging

import numpy as np
import pytest
from helpers.data import write_config
from mmseg.datasets import build_dataset
from PIL import Image

from mmseg_custom.datasets import faults
from mmseg_custom.datasets.prepare import PrepareOptions, prepare
from mmseg_custom.doctor.data import check_data
from mmseg_custom.engine.config import load_config
from mmseg_custom.errors import InputError

IMAGE = 'images/training/ADE_train_00000001.jpg'
LABEL = 'annotations/training/ADE_train_00000001.png'
ONES = np.ones((60, 80), np.uint8)


def encoded(picture, kind: str, orientation: int = 1) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[274] = orientation
    Image.fromarray(picture).save(file, kind, exif=exif)
    return file.getvalue()


def damaged_png() -> bytes:
    """A label with a bit flipped among its pixels, which Pillow decodes all the same."""
    labels = np.kron(np.random.default_rng(0).integers(1, 4, (6, 8)), np.ones((10, 10)))
    data = encoded(labels.astype(np.uint8), 'PNG')
    for at in range(data.index(b'IDAT') + 4, len(data) - 12):
        for bit in range(8):
            changed = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1:]
            try:
                found = np.asarray(Image.open(io.BytesIO(changed)))
            except Exception:
                continue
            if not np.array_equal(found, labels):
                return changed
    raise AssertionError('Pillow finds them all')


def cmyk() -> bytes:
    file = io.BytesIO()
    Image.new('CMYK', (80, 60), (50, 100, 150, 0)).save(file, 'JPEG')
    return file.getvalue()


PHOTO = encoded(np.stack([ONES * 90] * 3, -1), 'JPEG')
PNG = encoded(ONES, 'PNG')
CASES = {  # name -> (image, label, kind of the problem)
    'CMYK': (cmyk(), PNG, 'CMYK'),
    '16-bit image': (encoded((ONES * 90).astype(np.uint16) * 257, 'PNG'), PNG, '16-bit image'),
    '32-bit image': (encoded(ONES.astype(np.float32), 'TIFF'), PNG, '32-bit image'),
    'half a turn': (encoded(ONES, 'JPEG', 3), PNG, 'EXIF'),
    'turned as its label': (encoded(ONES.T.copy(), 'JPEG', 6), PNG, 'EXIF'),
    'turned away from its label': (encoded(ONES, 'JPEG', 6), PNG, 'turned from its label'),
    'another size': (PHOTO, encoded(ONES[:50], 'PNG'), 'sizes differ'),
    'cut image': (PHOTO[:-200], PNG, 'undecodable'),
    'cut label': (PHOTO, PNG[:-30], 'undecodable'),
    'damaged label': (PHOTO, damaged_png(), 'damaged label'),
    'empty image': (b'', PNG, 'undecodable'),
    'coloured label': (PHOTO, encoded(np.stack([ONES] * 3, -1), 'PNG'), 'label in colours'),
    '16-bit label': (PHOTO, encoded(ONES.astype(np.uint16), 'PNG'), '16-bit label'),
    'JPEG label': (PHOTO, encoded(ONES, 'JPEG'), 'JPEG label'),
    'label 151': (PHOTO, encoded(ONES * 151, 'PNG'), 'label out of range'),
    'label 255': (PHOTO, encoded(ONES * 255, 'PNG'), 'nothing labelled'),
    'label 0': (PHOTO, encoded(ONES * 0, 'PNG'), 'nothing labelled'),
}


@pytest.mark.parametrize('name', CASES)
def test_all_three_say_the_same(name, own_data, tmp_path, caplog):
    caplog.set_level(logging.CRITICAL)
    image, label, kind = CASES[name]
    (own_data / IMAGE).write_bytes(image)
    (own_data / LABEL).write_bytes(label)
    is_fault = faults.KINDS[kind][0] == faults.FAULT
    words = faults.KINDS[kind][1].partition('{')[0]  # of the message, before its figures

    # Preparing.
    options = PrepareOptions(str(own_data.parent), subset=True)
    try:
        notes = prepare('ade20k', [str(own_data)], options).notes
        assert not is_fault and list(notes) == [kind] and words in notes[kind][0]
    except InputError:
        [line] = (own_data.parent / 'ade20k.faults.txt').read_text().splitlines()
        assert is_fault and words in line

    # The doctor.
    cfg = load_config(str(write_config(tmp_path / 'config.py', own_data)))
    [finding] = check_data(cfg)[0]
    assert (finding.level == 'fault') == is_fault and f'it {words}' in finding.message
    assert finding.way_out == faults.KINDS[kind][2]

    # Loading.
    steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)]
    dataset = build_dataset(dict(type='ADE20KDataset', data_root=str(own_data), pipeline=steps,
                                 img_dir='images/training', ann_dir='annotations/training'))
    if is_fault:
        with pytest.raises(InputError, match=r'ADE_train_00000001') as error:
            dataset[0]
        assert words in str(error.value)
    else:
        sample = dataset[0]
        assert sample['img'].dtype == np.uint8
        assert sample['img'].shape[:2] == sample['gt_semantic_seg'].shape


def test_what_loading_makes_of_odd_images_is_what_the_list_says():
    """The levels in faults.py rest on this."""
    import mmcv
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint16)
    sixteen = encoded(pixels * 256 + 7, 'PNG')
    assert (mmcv.imfrombytes(sixteen, 'color')[..., 0] == pixels).all()  # the upper 8 bits
    kept = mmcv.imfrombytes(sixteen, 'unchanged', backend='pillow').astype(np.uint8)
    assert (kept == 7).all()  # of a label, the lower 8
    assert mmcv.imfrombytes(encoded(ONES, 'JPEG', 6), 'color').shape[:2] == (80, 60)
    turned = encoded(ONES, 'PNG', 6)
    assert mmcv.imfrombytes(turned, 'unchanged', backend='pillow').shape[:2] == (60, 80)
    colour = mmcv.imfrombytes(cmyk(), 'color', channel_order='rgb')[30, 40].astype(int)
    assert np.abs(colour - [205, 155, 105]).max() <= 3
    assert mmcv.imfrombytes(encoded(ONES.astype(np.float32), 'TIFF'), 'color') is None


@pytest.mark.parametrize('name, kind', [
    ('plain.jpg', None), ('stra\u00dfe.jpg', 'names beyond ASCII'),
    ('caf\udce9.jpg', 'name is not UTF-8')])
def test_names(name, kind):
    found = faults.check_name(name)
    assert (found and found.kind) == kind
