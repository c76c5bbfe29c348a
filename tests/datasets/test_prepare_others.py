"""Preparing the other data sets: archives of their form, mmseg's converters, one's own data."""
import importlib.util
import io
import json
import logging
import sys
import tarfile
import types
import zipfile

import numpy as np
import pytest
from mmcv import Config
from mmseg.datasets import build_dataset
from PIL import Image

from mmseg_custom.datasets.prepare import LAYOUTS, PrepareOptions, convert, prepare
from mmseg_custom.errors import InputError

CONFIGS = {'cityscapes': 'cityscapes', 'coco_stuff164k': 'coco_stuff164k',
           'pascal_context59': 'pascal_context59', 'voc2012': 'voc2012_aug'}


def encoded(array, kind='PNG') -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8)).save(file, kind)
    return file.getvalue()


PHOTO = encoded(np.zeros((60, 80, 3)), 'JPEG')


def write_zip(path, members: dict[str, bytes]) -> str:
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return str(path)


def write_tar(path, members: dict[str, bytes], mode='w') -> str:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def module(monkeypatch, name: str, **content) -> None:
    """Stands in for a package that converting needs, where it is not installed."""
    if importlib.util.find_spec(name.split('.')[0]) is None:
        parts = name.split('.')
        for i in range(1, len(parts)):
            monkeypatch.setitem(sys.modules, '.'.join(parts[:i]), types.ModuleType(parts[i - 1]))
        last = types.ModuleType(name)
        vars(last).update(content)
        monkeypatch.setitem(sys.modules, name, last)


@pytest.fixture(autouse=True)
def _fresh(caplog):
    caplog.set_level(logging.CRITICAL)
    convert.script.cache_clear()
    yield
    convert.script.cache_clear()


def load(name: str, out, split='train'):
    """The data set of the recipes, with its labels loaded."""
    layout = LAYOUTS[name]
    cfg = Config.fromfile(f'configs/_base_/datasets/{CONFIGS[name]}_504x504.py').data[split]
    cfg.data_root = str(out / layout.root)
    cfg.pipeline = cfg.pipeline[:2] if split == 'train' else []
    return build_dataset(cfg)


def ready(name, out, *archives, **options):
    return prepare(name, archives, PrepareOptions(str(out), subset=True, **options))


@pytest.fixture
def cityscapes(tmp_path, monkeypatch) -> list[str]:
    def json2labelImg(source, target, encoding):  # noqa: N802
        size = json.load(open(source))
        assert encoding == 'trainIds'
        Image.fromarray(np.zeros((size['imgHeight'], size['imgWidth']), np.uint8)).save(target)

    module(monkeypatch, 'cityscapesscripts.preparation.json2labelImg', json2labelImg=json2labelImg)
    polygons = json.dumps(dict(imgHeight=60, imgWidth=80, objects=[dict(
        label='road', polygon=[[0, 0], [79, 0], [79, 59], [0, 59]])])).encode()
    images, labels = {'README': b''}, {'license.txt': b''}
    for split, city in (('train', 'aachen'), ('train', 'ulm'), ('val', 'bonn')):
        name = f'{split}/{city}/{city}_000000_000019'
        images[f'leftImg8bit/{name}_leftImg8bit.png'] = encoded(np.zeros((60, 80, 3)))
        labels[f'gtFine/{name}_gtFine_polygons.json'] = polygons
        labels[f'gtFine/{name}_gtFine_color.png'] = b'not needed'
    return [write_zip(tmp_path / 'leftImg8bit_trainvaltest.zip', images),
            write_zip(tmp_path / 'gtFine_trainvaltest.zip', labels)]


def test_cityscapes(cityscapes, tmp_path):
    out = tmp_path / 'cityscapes'
    manifest = ready('cityscapes', out, *cityscapes)
    assert manifest.splits == {'train': 2, 'val': 1}
    assert not list(out.rglob('*_color.png')) and not (out / convert.STAGE).exists()
    dataset = load('cityscapes', out)
    assert len(dataset) == 2 and (dataset[0]['gt_semantic_seg'] == 0).all()
    [label, _] = sorted(out.glob('gtFine/train/*/*.png'))
    before = label.stat().st_mtime_ns
    label.with_name(label.name.replace('aachen', 'other')).touch()
    label.with_name(label.name.replace('aachen', 'other')).unlink()
    assert ready('cityscapes', out, *cityscapes) == manifest
    assert label.stat().st_mtime_ns == before  # converted once


def test_cityscapes_in_two_steps_and_what_is_missing_of_it(cityscapes, tmp_path):
    with pytest.raises(InputError, match='2 samples: expected 2,975; fetch'):
        prepare('cityscapes', cityscapes, PrepareOptions(str(tmp_path / 'whole')))
    out = tmp_path / 'cityscapes'
    with pytest.raises(InputError, match='4 faults'):
        ready('cityscapes', out, cityscapes[0])
    assert 'has no label' in (out / 'cityscapes.faults.txt').read_text()
    assert ready('cityscapes', out, cityscapes[1]).splits == {'train': 2, 'val': 1}


def test_polygons_that_are_damaged(cityscapes, tmp_path):
    path = write_zip(tmp_path / 'gtFine_2.zip', {
        'gtFine/train/ulm/ulm_000000_000019_gtFine_polygons.json': b'{"imgHeight": '})
    out = tmp_path / 'cityscapes'
    with pytest.raises(InputError, match=r'ulm_.*polygons.json cannot be converted \(JSONDec'):
        ready('cityscapes', out, cityscapes[0], path)
    assert not (out / convert.STAGE).exists()


@pytest.mark.parametrize('name, package', [
    ('cityscapes', 'cityscapesscripts'), ('pascal_context59', 'detail'), ('voc2012', 'scipy')])
def test_a_missing_package_is_named_before_anything_is_unpacked(name, package, tmp_path,
                                                               monkeypatch):
    for loaded in [key for key in sys.modules if key.startswith(f'{package}.')]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package, None)
    path = write_zip(tmp_path / 'a.zip', {
        'cityscapes': {'gtFine/train/a/b_gtFine_polygons.json': b'{}'},
        'pascal_context59': {'VOC2010/JPEGImages/a.jpg': PHOTO},
        'voc2012': {'benchmark_RELEASE/dataset/cls/a.mat': b'', 'dataset/train.txt': b''}}[name])
    with pytest.raises(InputError, match=f'needs the package {package}.*: pip install '):
        ready(name, tmp_path / 'out', path)
    assert not (tmp_path / 'out').exists()


def test_coco_stuff(tmp_path):
    images = write_zip(tmp_path / 'train2017.zip', {
        f'train2017/{i:012d}.jpg': PHOTO for i in (1, 2)})
    more = write_zip(tmp_path / 'val2017.zip', {f'val2017/{3:012d}.jpg': PHOTO})
    raw = np.full((60, 80), 181)
    raw[0, :3] = 0, 12, 255
    labels = write_zip(tmp_path / 'stuffthingmaps_trainval2017.zip', {
        f'{split}2017/{i:012d}.png': encoded(raw)
        for split, i in (('train', 1), ('train', 2), ('val', 3))})
    out = tmp_path / 'coco'
    assert ready('coco_stuff164k', out, images, more, labels).splits == {
        'train2017': 2, 'val2017': 1}
    loaded = load('coco_stuff164k', out)[1]['gt_semantic_seg']
    assert loaded[0, :4].tolist() == [0, 11, 255, 170]
    (out / f'annotations/val2017/{3:012d}_labelTrainIds.png').write_bytes(b'')  # cut off
    ready('coco_stuff164k', out, labels)


@pytest.fixture
def voc(tmp_path) -> str:
    border = np.full((60, 80), 255)
    border[5:, 5:] = 20
    members = {f'VOCdevkit/VOC2012/JPEGImages/{name}.jpg': PHOTO for name in 'abcdef'}
    members |= {f'VOCdevkit/VOC2012/SegmentationClass/{name}.png': encoded(border)
                for name in 'abc'}
    lists = 'VOCdevkit/VOC2012/ImageSets/Segmentation/'
    members |= {f'{lists}train.txt': b'a\nb\n', f'{lists}val.txt': b'c\n',
                'VOCdevkit/VOC2012/Annotations/a.xml': b'not needed'}
    return write_tar(tmp_path / 'VOCtrainval_11-May-2012.tar', members)


def test_voc_alone(voc, tmp_path):
    out = tmp_path / 'VOCdevkit'
    manifest = ready('voc2012', out, voc)
    assert manifest.splits == {'train': 2, 'val': 1} and len(manifest.files) == 6
    assert not (out / 'VOC2012/Annotations').exists()
    assert ready('voc2012', out, voc) == manifest
    assert len(load('voc2012', out, 'val')) == 1


def test_voc_with_sbd(voc, tmp_path, monkeypatch):
    def loadmat(path):
        return {'GTcls': [{'Segmentation': [np.load(path)]}]}

    module(monkeypatch, 'scipy.io', loadmat=loadmat)

    def mat(value) -> bytes:
        file, array = io.BytesIO(), np.full((60, 80), value, np.uint8)
        if 'scipy' in sys.modules and not hasattr(sys.modules['scipy'], '__version__'):
            np.save(file, array)
        else:
            savemat = pytest.importorskip('scipy.io').savemat
            savemat(file, {'GTcls': {'Segmentation': array}})
        return file.getvalue()

    sbd = write_tar(tmp_path / 'benchmark.tgz', {
        **{f'benchmark_RELEASE/dataset/cls/{name}.mat': mat(7) for name in 'bcde'},
        'benchmark_RELEASE/dataset/train.txt': b'b\nd\n',
        'benchmark_RELEASE/dataset/val.txt': b'c\ne\n'}, 'w:gz')
    out = tmp_path / 'VOCdevkit'
    manifest = ready('voc2012', out, voc, sbd)
    assert manifest.splits == {'train': 2, 'val': 1, 'aug': 2}
    sets = out / 'VOC2012/ImageSets/Segmentation'
    assert (sets / 'aug.txt').read_text() == 'd\ne\n'
    assert (sets / 'trainaug.txt').read_text() == 'a\nb\nd\ne\n'
    dataset = load('voc2012', out)
    assert len(dataset) == 4
    assert np.unique(dataset[0]['gt_semantic_seg']).tolist() == [20, 255]
    assert np.unique(dataset[3]['gt_semantic_seg']).tolist() == [7]


def test_tar_that_is_cut_short_or_climbs(voc, tmp_path):
    data = open(voc, 'rb').read()
    path = tmp_path / 'cut.tar'
    for size in (len(data) // 2, 1536, 1700):  # between members, and within one
        path.write_bytes(data[:size])
        with pytest.raises(InputError, match='cut.tar is cut short or damaged'):
            ready('voc2012', tmp_path / 'out', str(path))
    climbing = write_tar(tmp_path / 'up.tar', {'VOC2012/JPEGImages/../../../a.jpg': PHOTO})
    with pytest.raises(InputError, match='would land outside the target: nothing was unpacked'):
        ready('voc2012', tmp_path / 'out', climbing)
    zipped = write_tar(tmp_path / 'a.tgz', {'VOC2012/JPEGImages/a.jpg': PHOTO}, 'w:gz')
    whole = open(zipped, 'rb').read()
    open(zipped, 'wb').write(whole[:-20])
    with pytest.raises(InputError, match='a.tgz is cut short or damaged'):
        ready('voc2012', tmp_path / 'out', zipped)
    assert not (tmp_path / 'out').exists()


def test_pascal_context(tmp_path, monkeypatch):
    class Detail:
        def __init__(self, path, folder, split):
            self.images = json.load(open(path))[split]

        def getImgs(self):  # noqa: N802
            return [{'file_name': f'{name}.jpg'} for name in self.images]

        def getMask(self, image):  # noqa: N802
            mask = np.full((60, 80), 458 if image['file_name'] == 'a.jpg' else 2)
            mask[0, 0] = 0
            return mask

    monkeypatch.setitem(sys.modules, 'detail', types.SimpleNamespace(Detail=Detail))
    photos = write_tar(tmp_path / 'VOCtrainval_03-May-2010.tar', {
        f'VOCdevkit/VOC2010/JPEGImages/{name}.jpg': PHOTO for name in 'abc'})
    listed = tmp_path / 'trainval_merged.json'
    listed.write_text('{"train": ["a", "b"], "val": ["c"]}')
    out = tmp_path / 'VOCdevkit'
    manifest = ready('pascal_context59', out, photos, str(listed))
    assert manifest.splits == {'train': 2, 'val': 1}
    dataset = load('pascal_context59', out)
    assert dataset[0]['gt_semantic_seg'][0].tolist() == [255] + [58] * 79
    assert (dataset[1]['gt_semantic_seg'][1:] == 0).all()
    assert len(load('pascal_context59', out, 'val')) == 1


@pytest.mark.parametrize('change, message', [
    (lambda root: (root / 'ImageSets/Segmentation/train.txt').unlink(), 'train.txt does not exist'),
    (lambda root: (root / 'JPEGImages/b.jpg').unlink(), 'b.jpg does not exist, but .* lists it'),
    (lambda root: (root / 'SegmentationClass/a.png').unlink(), 'a.jpg has no label'),
    (lambda root: (root / 'ImageSets/Segmentation/train.txt').write_text(''), 'holds no .jpg')])
def test_recipes_on_other_data_name_what_is_wrong(voc, tmp_path, change, message):
    out = tmp_path / 'VOCdevkit'
    ready('voc2012', out, voc)
    change(out / 'VOC2012')
    root = str(out / 'VOC2012')
    with pytest.raises(InputError, match=message):
        build_dataset(dict(
            type='PascalVOCDataset', data_root=root, img_dir='JPEGImages', pipeline=[],
            ann_dir='SegmentationClass', split='ImageSets/Segmentation/train.txt'))
