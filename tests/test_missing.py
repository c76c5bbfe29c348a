"""What is said of a path that does not exist."""
import pytest

from mmseg_custom.errors import InputError
from mmseg_custom.missing import ROOT, look_around


@pytest.mark.parametrize('path, expected', [
    ('configs/tiny/full_tuning_tiny.py',
     f'; it is in {ROOT}: run the command there, or give {ROOT}/configs/tiny/full_tuning_tiny.py'),
    ('runs/first/ier_10.pth', ' (did you mean runs/first/iter_10.pth?): train'),
    ('run/first/iter_10.pth', ' (did you mean runs/first/iter_10.pth?): train'),
    ('run/other/iter_10.pth', ' (did you mean runs?): train'),
    ('runs/first/iter_10.pth/x', ': train'), ('quite/another', ': train'), ('../gone', ': train'),
])
def test_a_relative_path_is_said_to_be_where(tmp_path, monkeypatch, path, expected):
    (tmp_path / 'runs/first').mkdir(parents=True)
    (tmp_path / 'runs/first/iter_10.pth').touch()
    monkeypatch.chdir(tmp_path)
    assert look_around(path, 'train') == f' in {tmp_path}{expected}'
    assert look_around(path).endswith(expected.replace('): train', '').replace(
        ' (did', ': did').removesuffix(': train'))


def test_an_absolute_path_has_its_folder_in_it(tmp_path):
    (tmp_path / 'iter_10.pth').touch()
    assert look_around(f'{tmp_path}/iter_1.pth') == f': did you mean {tmp_path}/iter_10.pth?'
    assert look_around(f'{tmp_path}/other') == ''


def test_a_link_to_nothing_is_not_its_own_suggestion(tmp_path):
    (tmp_path / 'image.jpg').symlink_to('nothing')
    assert look_around(str(tmp_path / 'image.jpg')) == ''


def test_paths_in_a_config_say_where_they_were_looked_for(shared_data, tmp_path, monkeypatch):
    from helpers.data import SMALL_LINEAR, write_config

    from mmseg_custom.checkpoint import load_backbone
    from mmseg_custom.datasets.build import build_train_dataset
    from mmseg_custom.engine.config import load_config
    monkeypatch.chdir(tmp_path)
    cfg = load_config(str(write_config(tmp_path / 'config.py', shared_data, extra=SMALL_LINEAR)))
    cfg.data.train.data_root = 'examples'  # a folder of the repository
    cfg.data.train.img_dir = 'demo_data'
    with pytest.raises(InputError, match=rf'image folder examples/demo_data does not exist in '
                       rf'{tmp_path}; it is in {ROOT}: run the command there, or give /'):
        build_train_dataset(cfg.data.train)
    with pytest.raises(InputError, match=f'pretrained/x.pth does not exist in {tmp_path}: downl'):
        load_backbone(None, 'pretrained/x.pth')
