"""The page of a test: in a work dir of its own, and in no training's."""
import json

import pytest
from helpers.data import SMALL_LINEAR, prepare, write_config
from helpers.logs import logged

from mmseg_custom.engine.run_folder.tested import describe_test

RESULTS = dict(
    config='configs/a.py', images=3, date='2026-11-26', image_folder='/data/val', skipped=['x|y'],
    metric={'mIoU': 0.25, 'aAcc': 0.5, 'IoU.sky': 0.3, 'Acc.sky': 0.4, 'IoU.a|b': 0.2,
            'Acc.a|b': 0.1, 'IoU.gone': None, 'Acc.gone': None},
    interval=dict(figure='mIoU', level=0.95, low=0.2, high=0.3),
    checkpoint=dict(path='a.pth', sha256='0123'), time=dict(seconds=3., seconds_per_image=1.),
    hardware=dict(cpu='a CPU', processes=1))


@pytest.fixture
def tested(tmp_path, shared_data):
    """A test that is prepared, and the path of its results."""
    folder = tmp_path / 'run'
    folder.mkdir()
    (folder / 'eval_x.json').write_text(json.dumps(RESULTS))
    return prepare(write_config(tmp_path / 'config.py', shared_data, extra=SMALL_LINEAR),
                   splits=('test',), work_dir=str(folder), checkpoint='none'), folder


def test_page_of_a_test(tested):
    run, folder = tested
    describe_test(run, str(folder / 'eval_x.json'))
    page = (folder / 'README.md').read_text()
    assert ('| percent | | 95% interval |\n|---|--:|--:|\n| mIoU | 25.00 | 20.00 to 30.00 |\n'
            '| aAcc | 50.00 |  |\n\n') in page
    assert r'| a\|b | 20.00 | 10.00 |' + '\n| sky | 30.00 | 40.00 |\n' in page
    assert '1 of 3 classes have no figures' in page and r'| Skipped images | x\|y |' in page
    assert '| Images | 3 in /data/val |' in page and '| `eval_x.json` |' in page


def test_trainings_and_users_keep_their_pages(tested):
    run, folder = tested
    (folder / 'README.md').write_text('# mine\n')
    describe_test(run, str(folder / 'eval_x.json'))
    assert (folder / 'README.md').read_text() == '# mine\n'
    (folder / 'README.md').unlink()
    (folder / 'run.json').write_text('{}')
    describe_test(run, str(folder / 'eval_x.json'))
    assert not (folder / 'README.md').exists()


def test_a_page_that_fails_is_a_warning(tested):
    run, folder = tested
    with logged() as lines:
        describe_test(run, str(folder / 'missing.json'))
    assert len(lines) == 1 and f'{folder}/README.md was not written' in lines[0]
