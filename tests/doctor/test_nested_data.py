"""The doctor on data sets that repeat or join others."""
import pytest
from helpers.data import SMALL_LINEAR, draw_data, write_config
from helpers.nesting import NESTINGS, WRAPPERS

from mmseg_custom.doctor.checks import check_network, run_checks
from mmseg_custom.engine.before_start import classes_by_config
from mmseg_custom.engine.config import load_config
from mmseg_custom.engine.options import RunOptions


@pytest.fixture(scope='module')
def config_path(tmp_path_factory) -> str:
    """A config whose validation images are in no training data set, under no other name either."""
    folder = tmp_path_factory.mktemp('nested')
    val = draw_data(folder / 'val', train=0, seed=1)
    for path in val.glob('*/validation/*'):
        path.rename(path.with_stem(path.stem.replace('val', 'other')))
    path = write_config(folder / 'config.py', draw_data(folder), extra=SMALL_LINEAR)
    path.write_text(f'{path.read_text()}data["val"].update(data_root="{val}")\n'
                    f'data["test"].update(data_root="{val}")\n')
    return str(path)


@pytest.mark.parametrize('kind', [
    kind if kind in ('lists of folders', 'list of nested')
    else pytest.param(kind, marks=pytest.mark.slow) for kind in WRAPPERS])
def test_nested_data_sets_are_checked(kind, config_path, tmp_path):
    cfg = load_config(config_path, dict(work_dir=str(tmp_path)))
    nesting = NESTINGS[kind]
    cfg.data.train = nesting.of(dict(cfg.data.train))
    report = run_checks(cfg, RunOptions(), 1, None)
    assert report.healthy, [finding.line() for finding in report.findings]
    assert report.data['train']['images'] == sum(map(len, nesting.names))
    assert report.shape.crop == (56, 56)
    cfg.model.decode_head.num_classes = 149
    assert 'the head has 149 classes, the data 150' in check_network(cfg)[0].message


def test_classes_of_a_file_are_known(tmp_path):
    path = tmp_path / 'classes.txt'
    path.write_text('sky\r\n\nwall\n')
    train = dict(type='ADE20KDataset', classes=str(path))
    assert classes_by_config(train) == [('sky', 'wall')]
