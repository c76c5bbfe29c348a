"""Flipped bits, holes and cut ends are found by sums, and passed over by --auto-resume."""
import shutil
import threading
import zipfile
from pathlib import Path

import pytest
import torch
from helpers.logs import logged
from helpers.tiny_networks import Segmentor, tiny, write_flat

from mmseg_custom.checkpoint import (
    integrity,
    load_backbone,
    load_segmentor,
    newest_whole,
    open_checkpoint,
    read_checkpoint,
    save_checkpoint,
    save_sharded,
)
from mmseg_custom.checkpoint.convert import convert
from mmseg_custom.checkpoint.merge import merge
from mmseg_custom.errors import InputError

TENSOR, PICKLE, DIRECTORY = 'tensor', 'data.pkl', 'directory'


def damage(path: Path, where: str) -> None:
    """Flips a bit of a tensor, or overwrites a part of data.pkl or of the zip's directory."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        entries = {entry.filename.partition('/')[2]: entry for entry in file.infolist()}
        start = file.start_dir
    largest = max(entries, key=lambda name: entries[name].file_size)
    place = {TENSOR: entries[largest].header_offset + entries[largest].file_size,
             PICKLE: entries['data.pkl'].header_offset + 80, DIRECTORY: start + 40}[where]
    if where == TENSOR:
        data[place] ^= 1
    else:
        data[place:place + 30] = bytes(30)
    path.write_bytes(data)


@pytest.fixture
def run(tmp_path) -> Path:
    """A work dir with two checkpoints."""
    model = Segmentor()
    for iteration in (1, 2):
        save_checkpoint(model, str(tmp_path / f'iter_{iteration}.pth'),
                        torch.optim.AdamW(model.parameters()), dict(iter=iteration, epoch=1))
    return tmp_path


def test_a_disk_that_does_not_answer_is_not_waited_for_without_limit(monkeypatch, tmp_path):
    (tmp_path / 'large.pth').touch()
    monkeypatch.setattr(integrity, 'AT_ONCE_BYTES', 0)
    monkeypatch.setattr(integrity, 'SPARE_SECONDS', 0.1)
    answers = threading.Event()
    integrity.check_sums(str(tmp_path / 'large.pth'), 1, answers.wait)
    with pytest.raises(InputError, match='large.pth was not read within 0 minutes'):
        integrity.finish_checks()
    answers.set()
    integrity.finish_checks()


@pytest.mark.parametrize('where', [TENSOR, PICKLE, DIRECTORY])
def test_the_one_before_is_taken(run, where):
    newest, before = run / 'iter_2.pth', run / 'iter_1.pth'
    damage(newest, where)
    with logged() as lines:
        assert newest_whole(str(run)) == str(before)
    assert len(lines) == 1 and lines[0].startswith(str(newest)) and f'{before} is taken' in lines[0]
    assert len(lines[0].splitlines()) == 1
    shutil.rmtree(run / 'x', ignore_errors=True)
    for use in (open_checkpoint, read_checkpoint, lambda path: load_segmentor(Segmentor(), path),
                lambda path: merge(path, str(run / 'merged.safetensors'))):
        with pytest.raises(InputError, match=f'{newest} '):
            use(str(newest))
    assert not (run / 'merged.safetensors').exists()


@pytest.mark.parametrize('part', ['.metadata', 'meta.pth', '__0_0.distcp', 'hole', 'name'])
def test_a_damaged_folder(tmp_path, part):
    for iteration in (1, 2):
        save_sharded(Segmentor(), str(tmp_path / f'iter_{iteration}.dcp'),
                     meta=dict(iter=iteration, epoch=1))
    newest = tmp_path / 'iter_2.dcp'
    if part == 'meta.pth':
        damage(newest / part, PICKLE)
    else:
        file = newest / ('__0_0.distcp' if part in ('hole', 'name') else part)
        data = bytearray(file.read_bytes())
        place = data.rindex(b'data.pkl') if part == 'name' else len(data) // 2
        if part == 'hole':
            data[place:place + 5000] = bytes(5000)
        else:
            data[place] ^= 4
        file.write_bytes(data)
    with logged() as lines:
        assert newest_whole(str(tmp_path)) == str(tmp_path / 'iter_1.dcp')
    assert len(lines) == 1 and str(newest) in lines[0] and 'iter_1.dcp is taken' in lines[0]
    with pytest.raises(InputError, match=str(newest)):
        open_checkpoint(str(newest))


@pytest.mark.parametrize('form', ['x.pth', 'x.safetensors', 'x'])
def test_a_flipped_bit_of_a_backbone(tmp_path, form):
    path = tmp_path / form
    convert(write_flat(tmp_path), str(path), {'.pth': 'pth', '.safetensors': 'safetensors'}.get(
        path.suffix, 'hf'), num_heads=2)
    load_backbone(tiny(), str(path))
    file = next(path.glob('*.safetensors')) if path.is_dir() else path
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 16
    file.write_bytes(data)
    for use in (lambda: load_backbone(tiny(), str(path)),
                lambda: convert(str(path), str(tmp_path / 'y.pth'), 'pth')):
        with pytest.raises(InputError, match=f'{file} is damaged: the CRC-32 of'):
            use()


def test_files_without_sums_load(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(tiny().state_dict(), tmp_path / 'x.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    load_backbone(tiny(), str(tmp_path / 'x.pth'))


def test_large_files_are_checked_in_the_background(run, monkeypatch):
    """What is found ends the run before it writes, and is passed over when it starts again."""
    monkeypatch.setattr(integrity, 'AT_ONCE_BYTES', 0)
    damage(run / 'iter_2.pth', TENSOR)
    assert newest_whole(str(run)) == str(run / 'iter_2.pth')
    load_segmentor(Segmentor(), str(run / 'iter_2.pth'))
    with pytest.raises(InputError, match='iter_2.pth is damaged: the CRC-32 of'):
        integrity.finish_checks()
    integrity.finish_checks()
    assert newest_whole(str(run)) == str(run / 'iter_1.pth')
    integrity.finish_checks()


def test_one_process_of_a_host_checks_large_files(run, monkeypatch):
    monkeypatch.setattr(integrity, 'AT_ONCE_BYTES', 0)
    monkeypatch.setenv('LOCAL_RANK', '1')
    damage(run / 'iter_2.pth', TENSOR)
    open_checkpoint(str(run / 'iter_2.pth'))
    integrity.finish_checks()
