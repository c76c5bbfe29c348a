"""Preparing ADE20K from an archive: what is refused, what is found, and what a stop leaves."""
import errno
import hashlib
import io
import json
import logging
import multiprocessing
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.data import draw_data
from mmseg.datasets import build_dataset
from PIL import Image
from tqdm import tqdm

from mmseg_custom.datasets import faults as fault_list
from mmseg_custom.datasets.prepare import LAYOUTS, PrepareOptions, prepare, verify
from mmseg_custom.datasets.prepare.manifest import (
    PreparedManifest,
    read_manifest,
    write_manifest,
)
from mmseg_custom.errors import InputError

NAME = 'ADEChallengeData2016'
IMAGE = 'images/training/ADE_train_00000001.jpg'
LABEL = 'annotations/training/ADE_train_00000001.png'


def zipped(folder: Path, top: str = f'{NAME}/') -> Path:
    path = folder.parent / 'data.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob('*')):
            archive.write(file, top + str(file.relative_to(folder)))
    return path


@pytest.fixture(scope='session')
def drawn(tmp_path_factory) -> Path:
    return draw_data(tmp_path_factory.mktemp('drawn'))


@pytest.fixture(scope='session')
def archive(drawn) -> Path:
    return zipped(drawn)


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / 'ade'


def ready(out, *paths, **options) -> PreparedManifest:
    return prepare('ade20k', [str(path) for path in paths],
                   PrepareOptions(str(out), **{'subset': True, **options}))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob('*')) if path.is_file()}


def faults(out: Path) -> list[str]:
    assert not (out / 'ade20k.manifest.json').exists()
    return (out / 'ade20k.faults.txt').read_text().splitlines()


@pytest.mark.parametrize('top', [f'{NAME}/', '', 'some/where/' + f'{NAME}/'])
def test_zip_becomes_a_data_set(drawn, out, tmp_path, top):
    folder = shutil.copytree(drawn, tmp_path / 'copy' / NAME)
    (folder / 'readme.txt').write_text('not needed')
    manifest = ready(out, zipped(folder, top))
    assert contents(out / NAME) == contents(drawn)
    assert manifest.splits == {'training': 6, 'validation': 3} and len(manifest.files) == 18
    assert read_manifest(out / 'ade20k.manifest.json') == manifest
    dataset = build_dataset(dict(type='ADE20KDataset', data_root=str(out / NAME), pipeline=[],
                                 img_dir='images/training', ann_dir='annotations/training'))
    assert len(dataset) == 6


def test_manifest_holds_what_sha256sum_prints(archive, out):
    manifest = ready(out, archive)
    lines = subprocess.run('find images annotations -type f | LC_ALL=C sort | xargs sha256sum',
                           shell=True, cwd=out / NAME, capture_output=True, text=True).stdout
    listed = dict(reversed(line.split('  ')) for line in sorted(lines.splitlines()))
    assert {path: digest for path, (_, digest) in manifest.files.items()} == listed
    ordered = ''.join(f'{listed[path]}  {path}\n' for path in sorted(listed))
    total = subprocess.run('sha256sum', input=ordered, capture_output=True, text=True).stdout
    assert total.split()[0] == manifest.sha256


def test_second_run_writes_nothing_and_decodes_nothing(archive, out, monkeypatch):
    first = ready(out, archive)
    written = {path: path.stat() for path in (out / NAME).rglob('*.*')}
    monkeypatch.setattr(fault_list, 'read_header', None)
    assert ready(out, archive) == first
    assert ready(out, out / NAME) == first  # in place
    assert {path: path.stat() for path in (out / NAME).rglob('*.*')} == written


def test_damaged_and_missing_files_are_written_again(archive, drawn, out):
    ready(out, archive)
    (out / NAME / IMAGE).unlink()
    label = out / NAME / LABEL
    data = bytearray(label.read_bytes())
    data[40] ^= 1  # the size stays
    label.write_bytes(data)
    ready(out, archive)
    assert contents(out / NAME) == contents(drawn)


@pytest.mark.parametrize('link', [False, True])
def test_folder_is_copied_or_linked(drawn, out, link):
    manifest = ready(out, drawn, link=link)
    assert (out / NAME / IMAGE).is_symlink() == link
    assert contents(out / NAME) == contents(drawn)
    assert ready(out, drawn.parent, link=link) == manifest  # also from one above


def test_counts_are_those_of_the_published_set(archive, out):
    with pytest.raises(InputError, match='training has 6 samples: expected 20,210; '
                       'ADE_train_00000007 and 20,203 more are missing; .* --subset'):
        ready(out, archive, subset=False)
    assert not out.exists()


def test_a_name_too_many_is_named():
    split = LAYOUTS['ade20k'].splits[1]
    names = [split.number.format(i) for i in range(1, 2001)]
    assert verify.count_faults(split, names) == []
    [line] = verify.count_faults(split, names[:-1] + ['mine', 'mine (1)'])
    assert 'ADE_val_00002000 is missing' in line and 'mine and 1 more are not of the' in line


def hostile(kind: str) -> zipfile.ZipInfo | str:
    if kind != 'link':
        return kind
    info = zipfile.ZipInfo(f'{NAME}/{IMAGE}')
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def test_a_pipe_is_not_waited_for(out, tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(InputError, match='pipe is neither a file nor a folder'):
        ready(out, tmp_path / 'pipe')


@pytest.mark.parametrize('name', ['../outside.jpg', f'{NAME}/images/training/../../../../../x.jpg',
                                  '/etc/x.jpg', 'C:\\x.jpg', '..\\x.jpg', 'link'])
def test_names_that_climb_are_refused(name, out, archive, tmp_path):
    path = shutil.copy(archive, tmp_path / 'hostile.zip')
    with zipfile.ZipFile(path, 'a') as file:
        file.writestr(hostile(name), '/etc/passwd')
    before = set(tmp_path.rglob('*'))
    with pytest.raises(InputError, match='nothing was unpacked'):
        ready(out, path)
    assert set(tmp_path.rglob('*')) == before


def test_nothing_is_written_through_a_link_that_leads_away(archive, out, tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    (out / NAME / 'images').mkdir(parents=True)
    (out / NAME / 'images/training').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(InputError, match='images/training is a link that leads out of'):
        ready(out, archive)
    assert not list((tmp_path / 'elsewhere').iterdir())


@pytest.mark.parametrize('keep, message', [
    (0.0, 'data.zip is empty'), (0.5, r'archive .*data.zip is cut short or damaged \([\d,]+ bytes'),
    (0.999, 'is cut short or damaged .*continue the download')])
def test_partial_archive(archive, out, tmp_path, keep, message):
    data = archive.read_bytes()
    path = tmp_path / 'data.zip'
    path.write_bytes(data[:int(len(data) * keep)])
    with pytest.raises(InputError, match=message):
        ready(out, path)
    assert not out.exists()


@pytest.mark.parametrize('content, message', [
    (b'<!DOCTYPE html><html>', 'is a web page'), (b'\0' * 600, 'starts with zeros'),
    (b'\x89PNG\r\n\x1a\n', r"is no archive: it starts with b'\\x89PNG")])
def test_file_that_is_no_archive(content, message, out, tmp_path):
    path = tmp_path / 'data.zip'
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        ready(out, path)
    with pytest.raises(InputError, match='nowhere.zip does not exist'):
        ready(out, 'nowhere.zip')


@pytest.mark.parametrize('names, message', [
    (['VOCdevkit/VOC2012/JPEGImages/2007_000027.jpg'], 'looks like Pascal VOC 2012, which'),
    (['ADE20K_2021_17_01/images/a.jpg'], 'is the full ADE20K of thousands of classes'),
    (['holiday/sea.jpg', 'notes.txt'], 'holds 2 files in holiday, notes.txt .such as holiday/sea'),
    ([], 'it is empty')])
def test_wrong_archive_says_what_it_is(names, message, out, tmp_path):
    path = tmp_path / 'wrong.zip'
    with zipfile.ZipFile(path, 'w') as file:
        for name in names:
            file.writestr(name, 'x')
    with pytest.raises(InputError, match=f'{message}.*expected ADEChallengeData2016.zip'):
        ready(out, path)


def test_damaged_inside(archive, out, tmp_path):
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        info = file.getinfo(f'{NAME}/{IMAGE}')
    data[info.header_offset + 200] ^= 0xff
    path = tmp_path / 'data.zip'
    path.write_bytes(data)
    with pytest.raises(InputError, match='damaged after or at .*' + IMAGE):
        ready(out, path)
    assert not (out / NAME / IMAGE).exists() and not list(out.rglob('*.part'))
    ready(out, archive)


def test_target_that_cannot_be_written(archive, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match='file.*; choose another folder with --out'):
        ready(tmp_path / 'file' / 'ade', archive)
    with pytest.raises(InputError, match='/proc/ade.*; choose another folder with --out'):
        ready('/proc/ade', archive)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_read_only_target(archive, out):
    out.mkdir(mode=0o555)
    with pytest.raises(InputError, match='Permission denied; choose another folder with --out'):
        ready(out, archive)


def test_disk_that_is_too_small(archive, out, monkeypatch):
    usage = shutil.disk_usage('/')._replace(free=1000)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(InputError, match=r'has 1 kB free, and [\d.]+ kB are needed: make room'):
        ready(out, archive)
    assert not contents(out / NAME)


def test_disk_that_fills_up(archive, drawn, out, monkeypatch):
    whole, count = os.replace, iter(range(100))

    def replace(part, path):
        if next(count) == 5:
            raise OSError(errno.ENOSPC, 'No space left on device', str(part))
        whole(part, path)

    monkeypatch.setattr(os, 'replace', replace)
    with pytest.raises(InputError, match='is full .*: what was written is whole; make room'):
        ready(out, archive)
    assert len(contents(out / NAME)) == 5 and not list(out.glob('*.*.json'))
    assert contents(out / NAME).items() <= contents(drawn).items()
    monkeypatch.undo()
    ready(out, archive)
    assert contents(out / NAME) == contents(drawn)


def test_one_at_a_time(archive, out):
    out.mkdir()
    holder = subprocess.Popen(
        [sys.executable, '-c', 'import fcntl, sys, time; file = open(sys.argv[1], "w"); '
         'fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); time.sleep(60)',
         str(out / '.prepare.lock')], stdout=subprocess.PIPE)
    holder.stdout.readline()
    with pytest.raises(InputError, match='is being prepared by another process'):
        ready(out, archive)
    holder.kill()
    holder.wait()
    ready(out, archive)


def jpeg(mode='RGB', size=(80, 60), orientation=None) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[274] = orientation
    Image.new(mode, size).save(file, 'JPEG', exif=exif)
    return file.getvalue()


def png(array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, 'PNG')
    return file.getvalue()


def without_bytes(value: object) -> str | None:
    """Keeps files out of the names of tests."""
    return 'file' if isinstance(value, bytes) else None


ONES = np.ones((60, 80), np.uint8)


@pytest.mark.parametrize('image, label, message', [
    (jpeg(), png(ONES * 151), r'holds 151 \(4800 pixels\): expected 0..150, or 255'),
    (jpeg(), png(np.arange(4800).reshape(60, 80).astype(np.uint8)), 'holds 151, 152, 153, 154, 15'),
    (jpeg(), png(np.stack([ONES] * 3, -1)), 'is RGB, a picture in colours: expected one channel'),
    (jpeg(), png(np.stack([ONES] * 4, -1)), 'is RGBA, a picture in colours'),
    (jpeg(), png(ONES.astype(np.uint16)), 'has 16 bits a pixel: expected 8'),
    (jpeg(), png(ONES[:50]), r'has 60 x 80 pixels \(height x width\), its label 50 x 80; replace'),
    (jpeg(orientation=6), png(ONES), 'has 80 x 60 .* the turn .* EXIF orientation 6 .*exiftool'),
    (jpeg()[:-300], png(ONES), 'image .* cannot be decoded .*[Tt]runcated'),
    (jpeg(size=(800, 600))[:-900], png(ONES), 'image .* cannot be decoded .*truncated'),
    (b'', png(ONES), 'image .* cannot be decoded .the file is empty'),
    (b'<html>', png(ONES), 'image .* cannot be decoded .no known image format'),
    (jpeg(), jpeg('L'), 'label .* is a JPEG, which blurs class numbers'),
    (jpeg(), png(ONES)[:60], 'label .* cannot be decoded'),
    (jpeg(), jpeg()[:3], 'label .* cannot be decoded')], ids=without_bytes)
def test_faults_of_a_sample(drawn, out, image, label, message):
    shutil.copytree(drawn, out / NAME)
    (out / NAME / IMAGE).write_bytes(image)
    (out / NAME / LABEL).write_bytes(label)
    with pytest.raises(InputError, match='1 fault, listed in .*prepare_data.py ade20k .*' + NAME):
        ready(out, out / NAME)
    [line] = faults(out)
    assert re.search(message, line), line
    shutil.copy(drawn / IMAGE, out / NAME / IMAGE)  # corrected, as the message says
    shutil.copy(drawn / LABEL, out / NAME / LABEL)
    ready(out, out / NAME)
    assert not (out / 'ade20k.faults.txt').exists()


@pytest.mark.parametrize('image, label, kind', [
    (jpeg('CMYK'), png(ONES), 'CMYK'), (jpeg(orientation=6), png(ONES.T.copy()), 'EXIF'),
    (jpeg(orientation=3), png(ONES), 'EXIF'),
    (jpeg(), png(ONES * 255), 'nothing labelled'), (jpeg(), png(ONES * 0), 'nothing labelled')],
    ids=without_bytes)
def test_notes_of_a_sample_and_how_training_reads_it(drawn, out, image, label, kind):
    shutil.copytree(drawn, out / NAME)
    (out / NAME / IMAGE).write_bytes(image)
    (out / NAME / LABEL).write_bytes(label)
    notes = ready(out, out / NAME).notes
    assert list(notes) == [kind] and notes[kind][0].startswith((IMAGE, LABEL))
    assert ready(out, out / NAME).notes == notes  # also when nothing is decoded again
    steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)]
    sample = build_dataset(dict(type='ADE20KDataset', data_root=str(out / NAME), pipeline=steps,
                                img_dir='images/training', ann_dir='annotations/training'))[0]
    assert sample['img'].shape[:2] == sample['gt_semantic_seg'].shape
    assert sample['img'].shape[2] == 3


def test_pairs_names_and_twins(drawn, out):
    folder = shutil.copytree(drawn, out / NAME)
    (folder / 'annotations/training/ADE_train_00000002.png').unlink()
    (folder / 'images/training/ADE_train_00000003.jpg').unlink()
    for form, suffix, kind in (('NFC', 'jpg', 'images'), ('NFD', 'png', 'annotations')):
        name = unicodedata.normalize(form, 'Zürich')
        shutil.copy(folder / (IMAGE if suffix == 'jpg' else LABEL),
                    folder / kind / 'training' / f'{name}.{suffix}')
    broken = os.fsdecode(b'caf\xe9')
    shutil.copy(folder / IMAGE, folder / 'images/training' / f'{broken}.jpg')
    shutil.copy(folder / LABEL, folder / 'annotations/training' / f'{broken}.png')
    with pytest.raises(InputError, match='5 faults'):
        ready(out, folder)
    lines = '\n'.join(faults(out))
    assert 'ADE_train_00000002.jpg has no label: expected ' in lines
    assert 'ADE_train_00000003.png has no image: ' in lines
    assert 'NFC and NFD' in lines
    assert f'image {folder}/images/training/caf\ufffd.jpg has a name that is not UTF-8' in lines


def test_names_beyond_ascii_work(drawn, out, tmp_path):
    folder = shutil.copytree(drawn, tmp_path / NAME)
    for path, name in ((IMAGE, 'straße.jpg'), (LABEL, 'straße.png')):
        shutil.move(folder / path, (folder / path).with_name(name))
    path = zipped(folder)
    manifest = ready(out, path)
    [line] = manifest.notes['names beyond ASCII']
    assert line.startswith('images/training/straße.jpg has a name that is not ASCII')
    unflagged = tmp_path / 'unflagged.zip'  # UTF-8, and the archive does not say so
    data = bytearray(path.read_bytes())
    for head, flags in ((b'PK\x03\x04', 7), (b'PK\x01\x02', 9)):
        place = data.find(head)
        while place >= 0:
            data[place + flags] &= ~0x08
            place = data.find(head, place + 4)
    unflagged.write_bytes(data)
    with zipfile.ZipFile(unflagged) as file:
        assert any('├' in name for name in file.namelist())
    assert ready(tmp_path / 'other', unflagged).files == manifest.files


def test_twins_are_noted(drawn, out):
    folder = shutil.copytree(drawn, out / NAME)
    shutil.copy(folder / IMAGE, folder / 'images/validation/twin.jpg')
    shutil.copy(folder / LABEL, folder / 'annotations/validation/twin.png')
    assert ready(out, folder).notes['twins'] == [f'{IMAGE} = images/validation/twin.jpg']


def test_a_damaged_manifest_is_made_again(archive, out):
    first = ready(out, archive)
    path = out / 'ade20k.manifest.json'
    path.write_text(path.read_text()[:300])
    assert ready(out, archive) == first
    assert json.loads(path.read_text())['sha256'] == first.sha256


def test_after_a_manifest_of_another_version_everything_is_checked_once(drawn, out):
    shutil.copytree(drawn, out / NAME)
    (out / NAME / IMAGE).write_bytes(jpeg('CMYK'))
    (out / NAME / LABEL).write_bytes(png(ONES * 151))
    path, content = out / 'ade20k.manifest.json', contents(out / NAME)
    files = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in content.items()}
    write_manifest(path, PreparedManifest('ade20k', NAME, {}, files, {
        'CMYK JPEG': [f'{IMAGE} is a CMYK JPEG']}, version=1))
    with pytest.raises(InputError, match='1 fault'):
        ready(out, out / NAME)
    (out / NAME / LABEL).write_bytes(png(ONES))
    write_manifest(path, PreparedManifest('ade20k', NAME, {}, files, {
        'CMYK JPEG': [f'{IMAGE} is a CMYK JPEG']}, version=1))
    notes = ready(out, out / NAME).notes
    assert list(notes) == ['CMYK'] and len(notes['CMYK']) == 1


def test_a_manifest_that_cannot_be_written(tmp_path):
    path = tmp_path / 'missing/ade20k.manifest.json'
    with pytest.raises(InputError) as error:
        write_manifest(path, PreparedManifest('ade20k', NAME, {}, {}))
    assert str(error.value) == (
        f'{path} was not written (the folder {path.parent} does not exist); earlier files are '
        'unchanged: make room, or allow writing there, and run the command again')


def ready_with_own_lock(*args, **options) -> None:
    """Unlike tqdm's own lock, which processes share, this one is not left locked by a kill."""
    tqdm.set_lock(threading.RLock())
    ready(*args, **options)


def test_killed_anywhere_it_is_resumed(tmp_path, out):
    """Kills it six times; what is there is whole each time, and the end is the same."""
    drawn = draw_data(tmp_path / 'many', train=60, val=20)
    archive, fork = zipped(drawn), multiprocessing.get_context('fork')
    rng, expected = random.Random(0), contents(drawn)
    started = time.monotonic()
    whole = ready(tmp_path / 'whole', archive, workers=2)
    seconds, reached = time.monotonic() - started, set()
    for i in range(6):
        goal = rng.randrange(len(expected)) if i % 3 else 0  # files; or any time after that
        if goal:
            shutil.rmtree(out / NAME, ignore_errors=True)
        process = fork.Process(target=ready_with_own_lock, args=(out, archive),
                               kwargs=dict(workers=2))
        process.start()
        while process.is_alive() and len(list(out.glob('*/*/*/*'))) < goal:
            time.sleep(0.001)
        time.sleep(0 if goal else rng.uniform(0, seconds))
        process.kill()
        process.join()
        there = {name: data for name, data in contents(out / NAME).items()
                 if not name.endswith('.part')}
        assert there.items() <= expected.items()
        reached.add(len(there))
        manifest = read_manifest(out / 'ade20k.manifest.json')
        assert manifest is None or manifest == whole
    assert len(reached) > 2  # it was stopped in different places
    assert ready(out, archive, workers=2) == whole
    assert contents(out / NAME) == expected


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL)
