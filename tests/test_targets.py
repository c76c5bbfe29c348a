import os

import pytest

from mmseg_custom.files import SaveError, atomic_write
from mmseg_custom.targets import spare_folders, try_target, write_or_rescue


def test_a_target_is_tried_before_it_is_needed(tmp_path):
    try_target(tmp_path / 'new/folder/x.pkl')
    assert os.listdir(tmp_path / 'new/folder') == []
    (tmp_path / 'file').write_text('')
    for path in (tmp_path, tmp_path / 'file/x.pkl', '/proc/x.pkl'):
        with pytest.raises(SaveError, match='was not written'):
            try_target(path)
    with pytest.raises(SaveError, match=r'x was not written \(it takes 1.05e.06 TiB; .* were free'):
        try_target(tmp_path / 'x', nbytes=2**60)
    with pytest.raises(SaveError, match='the folder .*/none does not exist'):
        try_target(tmp_path / 'none/x', make_folder=False)


def test_what_cannot_be_written_is_kept_elsewhere(tmp_path):
    def write(path):
        if path.startswith(full):
            raise SaveError(28, 'was not written (No space left on device)', path)
        atomic_write(path, 'content')

    full, spare = str(tmp_path / 'full'), tmp_path / 'spare'
    spare.mkdir()
    assert write_or_rescue(str(spare / 'a'), write, []) == str(spare / 'a')
    for kept in ('x.pkl', 'x2.pkl'):  # a file that is there stays
        assert write_or_rescue(f'{full}/x.pkl', write, [full, str(spare)]) == str(spare / kept)
        assert (spare / kept).read_text() == 'content'
    with pytest.raises(SaveError, match='full/x.pkl was not written'):
        write_or_rescue(f'{full}/x.pkl', write, [full, str(tmp_path / 'nowhere')])


def test_without_a_temporary_folder_there_is_the_current_one(monkeypatch):
    def none():
        raise FileNotFoundError('No usable temporary directory found')

    monkeypatch.setattr('tempfile.gettempdir', none)
    assert spare_folders() == ['.']
