"""Faults are planted one by one in a sound set and in sound weights; each has to be named."""
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data import SMALL_LINEAR, draw_data, write_config
from helpers.tiny_networks import SIZE
from mmcv import Config
from mmseg.models import build_segmentor
from PIL import Image

from mmseg_custom.doctor import environment
from mmseg_custom.doctor.checks import check_network, check_optimizer, run_checks
from mmseg_custom.doctor.data import check_data
from mmseg_custom.doctor.environment import check_environment
from mmseg_custom.doctor.findings import FAULT, WARNING
from mmseg_custom.doctor.run_shape import RunShape
from mmseg_custom.doctor.weights import check_weights
from mmseg_custom.engine.config import load_config
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.models import InternViT6B

IMAGE = 'images/training/ADE_train_00000002.jpg'
LABEL = 'annotations/training/ADE_train_00000002.png'
VAL_IMAGE = 'images/validation/ADE_val_00000001.jpg'


@pytest.fixture(scope='module')
def sound(tmp_path_factory) -> Path:
    """A data set that is copied for each fault."""
    return draw_data(tmp_path_factory.mktemp('sound'), train=5, val=2)


@pytest.fixture
def data(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / 'ADEChallengeData2016'))


def config(root: Path, **changes) -> Config:
    cfg = load_config(str(write_config(root.parent / 'config.py', root, extra=SMALL_LINEAR)))
    cfg.merge_from_dict(changes)
    return cfg


def lines(findings, level: str = FAULT) -> str:
    return '\n'.join(finding.line() for finding in findings if finding.level == level)


def rewrite(path: Path, change) -> None:
    """Replaces a picture by ``change`` of it."""
    with Image.open(path) as image:
        image.load()
    change(image, path)


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * share)])


def label_value(value: int):
    def change(image, path):
        labels = np.array(image)
        labels[5, 5:8] = value
        Image.fromarray(labels).save(path)
    return change


def turned(image, path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif)


def unlabelled(image, path):
    Image.new('L', image.size).save(path)


def same_pixels(data: Path):
    content = (data / IMAGE).read_bytes()
    comment = b'\xff\xfe\x00\x09another'
    (data / 'images/validation/ADE_val_00000009.jpg').write_bytes(
        content[:2] + comment + content[2:])
    shutil.copy(data / LABEL, data / 'annotations/validation/ADE_val_00000009.png')


def same_name(data: Path):
    for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
        os.rename(data / f'{kind}/validation/ADE_val_00000001.{suffix}',
                  data / f'{kind}/validation/ADE_train_00000001.{suffix}')


def same_bytes(data: Path):
    shutil.copy(data / IMAGE, data / VAL_IMAGE)
    shutil.copy(data / LABEL, data / 'annotations/validation/ADE_val_00000001.png')


DATA_FAULTS = {
    'label without image': (lambda d: (d / IMAGE).unlink(), r'ADE_train_00000002.png.*no image'),
    'image without label': (lambda d: (d / LABEL).unlink(), r'ADE_train_00000002.jpg.*no label'),
    'empty image': (lambda d: (d / IMAGE).write_bytes(b''), r'00000002.jpg.*empty'),
    'image cut short': (lambda d: cut(d / IMAGE, .6), r'00000002.jpg.*cut short'),
    'label cut short': (lambda d: cut(d / LABEL, .6), r'00000002.png.*cut short'),
    'web page': (lambda d: (d / IMAGE).write_bytes(b'<html>not found</html>'),
                 r'00000002.jpg.*no known image'),
    'damaged inside': (lambda d: (d / LABEL).write_bytes(
        (lambda b: b[:60] + bytes(20) + b[80:])((d / LABEL).read_bytes())),
        r'00000002.png.*(decoded|opened)'),
    'label 151': (lambda d: rewrite(d / LABEL, label_value(151)),
                  r'00000002.png.*holds 151 \(3 pixels\): expected 0..150'),
    'RGB label': (lambda d: rewrite(d / LABEL, lambda i, p: i.convert('RGB').save(p)),
                  r'00000002.png.*is RGB, a picture in colours'),
    '16-bit label': (lambda d: rewrite(d / LABEL, lambda i, p: Image.fromarray(
        np.array(i).astype(np.uint16) * 256).save(p)), r'00000002.png.*16 bits a pixel'),
    'JPEG label': (lambda d: rewrite(d / LABEL, lambda i, p: i.save(p, format='JPEG')),
                   r'00000002.png.*JPEG'),
    'nothing labelled': (lambda d: [rewrite(path, unlabelled) for path in d.glob(
        'annotations/training/*.png')], r'annotations/training: no label .* has a pixel of a cl'),
    'other size': (lambda d: rewrite(d / LABEL, lambda i, p: i.resize((50, 60), 0).save(p)),
                   r'00000002.jpg.*its label 60 x 50'),
    'EXIF orientation': (lambda d: rewrite(d / IMAGE, turned), r'00000002.jpg.*orientation 6'),
    'other suffix': (lambda d: rewrite(d / IMAGE, lambda i, p: i.save(
        d / 'images/training/ADE_train_00000077.jpeg')), r'00000077.jpeg.*not read'),
    'same name in both splits': (same_name, r'ADE_train_00000001.jpg.*of this name'),
    'same file in both splits': (same_bytes, r'val_00000001.jpg.*same picture as .*00000002.jpg'),
    'same pixels in both splits': (same_pixels, r'00000009.jpg.*same picture as .*00000002.jpg'),
    'empty split': (lambda d: [p.unlink() for p in (d / 'images/validation').iterdir()],
                    r'data.val: .*holds no .jpg'),
    'missing folder': (lambda d: shutil.rmtree(d / 'images/validation'),
                       r'data.val: .*does not exist'),
}


@pytest.mark.parametrize('name', DATA_FAULTS)
def test_finds_what_is_wrong_with_data(name, data):
    plant, expected = DATA_FAULTS[name]
    plant(data)
    findings, _ = check_data(config(data))
    assert any(f.level == FAULT and re.search(expected, f.line())
               for f in findings), lines(findings)


def test_names_that_are_not_ascii_are_a_warning(data):
    for path in (data / IMAGE, data / LABEL):
        path.rename(path.with_stem('stra\u00dfe'))
    findings, _ = check_data(config(data))
    assert not lines(findings) and 'stra\u00dfe.jpg: it has a name that is not ASCII' in lines(
        findings, WARNING)


def test_same_folder_for_training_and_validation(data):
    cfg = config(data, **{'data.val.img_dir': 'images/training',
                          'data.val.ann_dir': 'annotations/training'})
    assert 'read the same folder' in lines(check_data(cfg)[0])


def test_option_that_a_data_set_does_not_know_is_named(data):
    cfg = config(data, **{'data.train.max_images': 3})
    assert re.search("data.train: ADE20KDataset cannot be built: .*'max_images'; correct its opt",
                     lines(check_data(cfg)[0]))


def test_pipeline_that_fails_is_named(data):
    cfg = config(data)
    cfg.data.train.pipeline[2] = dict(type='Resize', img_scale=(0, 0))
    assert 'data.train: step 2 (Resize) of the pipeline fails on' in lines(check_data(cfg)[0])


def test_classes_that_differ_are_named(data):
    cfg = config(data, **{'data.train.classes': ['sky', 'wall'],
                          'data.val.classes': ['wall', 'sky'], 'data.val.ignore_index': 1})
    assert "class 0 is 'sky' in data.train, and 'wall' in data.val; set" in lines(
        check_data(cfg)[0])
    cfg.data.val.classes = ['sky', 'wall']
    assert 'labels of 1 are left out of the metrics' in lines(check_data(cfg)[0], WARNING)
    cfg.model.decode_head.num_classes = 1
    assert 'has a single channel' in lines(check_network(cfg))


@pytest.mark.parametrize('loss', [
    dict(_delete_=True, type='LovaszLoss', reduction='none'),
    dict(type='CrossEntropyLoss', use_sigmoid=True, avg_non_ignore=True)])
def test_a_loss_that_cannot_be_simulated_is_no_fault(sound, tmp_path, loss):
    cfg = load_config(str(write_config(tmp_path / 'config.py', sound, extra=SMALL_LINEAR + (
        f"model['decode_head']['loss_decode'] = {loss}"))))
    report = run_checks(cfg, RunOptions(device='cpu'), ranks=1, memory=2 ** 33, tflops=1.)
    assert not lines(report.findings)
    assert f'memory and time are not predicted: {loss["type"]}' in lines(report.findings, WARNING)


def test_sound_data_has_no_findings(sound):
    findings, figures = check_data(config(sound))
    assert findings == []
    assert figures == {'train': dict(images=5, decoded=5), 'val': dict(images=2, decoded=2)}


def weights_config(data: Path, change=lambda state: None, **options) -> Config:
    """Head tuning on a small backbone whose file is changed before it is written."""
    small = dict(SIZE, depth=2, out_indices=[1])
    state = InternViT6B(**{**small, **options}).state_dict()
    change(state)
    path = data.parent / 'weights.pth'
    torch.save(state, path)
    cfg = config(data)
    cfg.model.backbone.pretrained = str(path)
    return cfg


WEIGHT_FAULTS = {
    'NaN': (lambda s: s['blocks.1.mlp.fc1.weight'][3].fill_(float('nan')),
            r'blocks.1.mlp.fc1.weight.*NaN'),
    'infinity': (lambda s: s['blocks.0.norm1.weight'][3].fill_(float('inf')),
                 r'blocks.0.norm1.weight.*infinity'),
    'zeros': (lambda s: s['blocks.0.attn.proj.weight'].zero_(), r'attn.proj.weight.*zeros'),
    'missing key': (lambda s: s.pop('blocks.1.mlp.fc2.bias'), r'missing: blocks.1.mlp.fc2.bias'),
    'unknown key': (lambda s: s.update(extra=torch.ones(2)), r'unexpected: extra'),
    'wrong shape': (lambda s: s.update(cls_token=torch.ones(1, 2, 32)), r'cls_token has shape'),
    'quantised': (lambda s: s.update({'blocks.0.mlp.fc1.weight': s['blocks.0.mlp.fc1.weight'].to(
        torch.int8)}), r'int8: quantised'),
}


@pytest.mark.parametrize('name', WEIGHT_FAULTS)
def test_finds_what_is_wrong_with_weights(name, data):
    change, expected = WEIGHT_FAULTS[name]
    findings, _ = check_weights(weights_config(data, change))
    assert re.search(expected, lines(findings)), lines(findings)


def test_other_architecture_missing_and_cut_files(data):
    other = weights_config(data, depth=1, out_indices=[0])
    assert 'depth=1' in lines(check_weights(other)[0])
    path = Path(other.model.backbone.pretrained)
    cut(path, .5)
    assert 'cut short' in lines(check_weights(other)[0])
    path.unlink()
    assert 'does not exist' in lines(check_weights(other)[0]) or 'no such file' in lines(
        check_weights(other)[0])


def test_blocks_that_are_left_aside_are_a_warning(data):
    findings, figures = check_weights(weights_config(data, depth=4, out_indices=[3]))
    assert not lines(findings) and [f['values_read'] for f in figures.values()] == [1.0]
    assert 'holds 4 blocks' in lines(findings, WARNING)
    assert 'depth=2): blocks.2 to blocks.3 are left aside' in lines(findings, WARNING)


def test_sound_weights_have_no_findings(data):
    findings, figures = check_weights(weights_config(data))
    assert findings == [] and [f['values_read'] for f in figures.values()] == [1.0]


def test_number_of_classes_must_be_that_of_the_data(data):
    assert not check_network(config(data))
    wrong = config(data, **{'model.decode_head.num_classes': 149})
    assert 'num_classes: the head has 149 classes, the data 150' in lines(check_network(wrong))
    more = config(data, **{'model.decode_head.num_classes': 151})
    assert 'num_classes: the head has 151 classes, the data 150' in lines(check_network(more))


@pytest.mark.parametrize('options, says', [
    (dict(type='Lion'), 'Lion does not work with these options: Lion is not in the optimizer'),
    (dict(type='AdamW', momentum=0.9), "AdamW .* unexpected keyword argument 'momentum'"),
    (dict(type='AdamW', lr=-1), 'AdamW .* Invalid learning rate: -1'), ({}, 'no type is given')])
def test_an_optimizer_that_cannot_be_built_is_named(data, options, says):
    cfg = config(data)
    assert not check_optimizer(cfg)
    cfg.optimizer = options
    assert re.match(f'optimizer: {says}', lines(check_optimizer(cfg)))


def test_disk_and_shared_memory_must_suffice(data, monkeypatch):
    cfg = config(data, work_dir=str(data.parent))
    cfg.data.workers_per_gpu = 4
    shape = RunShape('cpu', 2, 2, (112, 112))
    assert not check_environment(cfg, shape)[0]
    usage = shutil.disk_usage('/')._replace(free=1000)
    monkeypatch.setattr(environment.shutil, 'disk_usage', lambda path: usage)
    found = lines(check_environment(cfg, shape)[0])
    assert 'checkpoints of' in found and '/dev/shm: 0.977 KiB are free' in found


@pytest.mark.parametrize('optimizer, moments', [
    (dict(type='AdamW'), 2), (dict(type='SGD', momentum=0.9), 1), (dict(type='SGD'), 0)])
def test_checkpoints_hold_the_moments_of_the_optimizer(data, optimizer, moments):
    cfg = weights_config(data)
    cfg.optimizer = dict(optimizer, lr=0.1)
    head = build_segmentor(cfg.model).decode_head
    trained = sum(p.numel() for p in head.parameters())
    expected = 4 * trained * (1 + moments) + sum(b.nbytes for b in head.buffers())
    assert environment.checkpoint_bytes(cfg) == expected
