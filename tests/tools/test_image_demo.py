"""tools/image_demo.py on images of one's own, without a data set."""
import numpy as np
import pytest
from helpers.data import SMALL_LINEAR, write_config
from PIL import Image


@pytest.fixture
def demo(run_tool, tmp_path):
    """Runs the tool in this process: arguments -> (exit code, stdout, stderr)."""
    config = write_config(tmp_path / 'tiny.py', tmp_path, extra=SMALL_LINEAR)

    def demo(images, *options, checkpoint='none'):
        return run_tool('image_demo.py', images, config, checkpoint, '--out', tmp_path / 'out',
                        '--device', 'cpu', *options)

    return demo


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / 'frames'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in (1, 2, 10):
        Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8)).save(folder / f'f{i}.png')
    return folder


def test_folder_gives_overlays_and_labels(demo, frames, tmp_path):
    (frames / 'notes.txt').write_text('no image')
    (frames / '._f1.png').write_bytes(b'metadata')
    (frames / 'more').mkdir()
    code, out, error = demo(frames)
    assert '0 of 3 images' in error and '\r' not in error and 'avg_non_ignore' not in error
    assert 'left out: 1 files ._*' in error
    assert "1 folders ('more' ...)" in error and "1 files of other suffixes ('notes.txt'" in error
    assert code == 0 and out.splitlines()[-1] == str(tmp_path / 'out')
    for i in (1, 2, 10):
        labels = Image.open(tmp_path / f'out/labels/f{i}.png')
        assert labels.mode == 'P' and labels.size == (70, 50)
        low, high = labels.getextrema()
        assert 1 <= low <= high <= 150  # ADE20K: 0 is "other"
        assert Image.open(tmp_path / f'out/overlays/f{i}.jpg').height > 50


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', 'I;16'])
def test_pictures_of_other_kinds(demo, tmp_path, mode):
    data = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    picture = Image.fromarray(data.astype(np.uint16) * 200) if mode == 'I;16' else (
        Image.fromarray(data).convert(mode))
    picture.save(tmp_path / 'a.png')
    assert demo(tmp_path / 'a.png')[0] == 0
    assert Image.open(tmp_path / 'out/labels/a.png').size == (60, 40)


@pytest.mark.parametrize('spoil, message', [
    (lambda folder: [path.unlink() for path in folder.iterdir()], 'holds no image'),
    (lambda folder: (folder / 'f2.png').write_bytes(b'no image'), 'f2.png cannot be decoded'),
    (lambda folder: (folder / 'f2.png').write_bytes(b''), 'f2.png cannot be'),
    (lambda folder: Image.new('RGB', (9, 9)).save(folder / 'f2.jpg'), '2 images called f2'),
])
def test_bad_images_are_one_line(demo, frames, spoil, message):
    spoil(frames)
    code, _, error = demo(frames)
    assert code == 1 and 'Traceback' not in error
    last = error.strip().splitlines()[-1]
    assert last.startswith('error: ') and message in last


def test_broken_images_do_not_stop_the_others(demo, frames, tmp_path):
    (frames / 'f1.png').write_bytes(b'no image')
    (frames / 'f3.jpg').mkdir()
    Image.new('RGB', (1, 300)).save(frames / 'f4.png')
    code, _, error = demo(frames)
    assert code == 1 and error.count('failed: ') == 2 and 'Traceback' not in error
    assert error.splitlines()[-1].startswith('error: 2 of 5 images failed, the others are done')
    for kind, ending in (('labels', 'png'), ('overlays', 'jpg')):
        assert {path.name for path in (tmp_path / 'out' / kind).iterdir()} == {
            f'f{i}.{ending}' for i in (2, 4, 10)}


def test_missing_files_are_one_line(demo, frames, tmp_path):
    for images, checkpoint, message in (
            (tmp_path / 'gone', 'none', 'gone does not exist'),
            (frames, 'gone.pth', 'checkpoint gone.pth does not exist')):
        code, _, error = demo(images, checkpoint=checkpoint)
        assert code == 1 and message in error and 'Traceback' not in error
