"""Training and testing with data.val and data.test of several data sets."""
import json
from pathlib import Path

import pytest
from helpers.data import SMALL_LINEAR, write_config
from helpers.nesting import FOLDERS

LISTS = f"""
data['val'].update({FOLDERS})
data['test'] = [dict(data['test'], type='ADE20KDataset', img_dir=f'images/{{part}}',
                     ann_dir=f'annotations/{{part}}') for part in ('validation', 'training')]
"""


@pytest.fixture(scope='module')
def config(shared_data, tmp_path_factory) -> Path:
    return write_config(tmp_path_factory.mktemp('several') / 'config.py', shared_data,
                        extra=SMALL_LINEAR + LISTS)


@pytest.mark.parametrize('best', ['mIoU', pytest.param('1_mIoU', marks=pytest.mark.slow)])
def test_best_is_of_all_or_of_one(config, run_tool, tmp_path, best):
    code, _, error = run_tool(
        'train.py', config, '--work-dir', tmp_path, '--device', 'cpu', '--cfg-options',
        f'evaluation.save_best={best}', 'runner.max_iters=2', 'evaluation.interval=2')
    assert code == 0, error
    assert (tmp_path / f'best_{best}_iter_2.pth').exists()
    logged = next(json.loads(line) for line in next(tmp_path.glob('*.log.json')).read_text(
        ).splitlines() if '"mode": "val"' in line)
    assert {'mIoU', '0_mIoU', '1_mIoU', 'aAcc', '0_aAcc'} <= logged.keys()


def test_one_process_and_two_give_the_same_figures(config, zygote, tmp_path):
    def figures(name, *options, ranks):
        zygote.run('tools/test.py', config, 'none', '--eval', 'mIoU', 'mBIoU', '--work-dir',
                   tmp_path / name, '--device', 'cpu', *options, ranks=ranks)
        found = json.loads(next((tmp_path / name).glob('eval_*.json')).read_text())
        return {key: found[key] for key in ('metric', 'interval', 'data_sets', 'image_folder')}

    one = figures('one', '--show-dir', tmp_path / 'show', ranks=1)
    assert one == figures('two', '--launcher', 'pytorch', ranks=2)
    assert {'mIoU', 'mBIoU', '0_mIoU', '1_mBIoU'} <= one['metric'].keys()
    assert len(list((tmp_path / 'show').glob('*/ADE_*.jpg'))) == 9
    page = zygote.run('tools/report.py', tmp_path / 'one')
    assert 'images/training' in Path(page.strip().splitlines()[-1]).read_text()


def test_label_files_of_each_and_flipped_views(config, run_tool, tmp_path):
    code, _, error = run_tool('test.py', config, 'none', '--format-only', '--aug-test',
                              '--work-dir', tmp_path, '--device', 'cpu')
    assert code == 0, error
    written = [list((tmp_path / 'format_results' / part).glob('*.png')) for part in '01']
    assert list(map(len, written)) == [3, 6]
    code, _, error = run_tool('test.py', config, 'none', '--eval', 'cityscapes', '--work-dir',
                              tmp_path, '--device', 'cpu')
    assert code == 1 and '--format-only: ADE20KDataset' not in error and '2 data sets' in error
