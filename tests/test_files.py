import os

import pytest

from mmseg_custom.files import (
    PART,
    SaveError,
    atomic_folder,
    atomic_path,
    atomic_write,
    commit_folder,
    replace_link,
)


def test_text_becomes_utf_8(tmp_path):
    atomic_write(tmp_path / 'x', 'Ä\n')
    assert (tmp_path / 'x').read_bytes() == b'\xc3\x84\n' and os.listdir(tmp_path) == ['x']


def test_processes_that_write_the_same_file_have_temporary_names_of_their_own(tmp_path):
    path = str(tmp_path / 'x')
    with atomic_path(path, unique=True) as mine, atomic_path(path) as other:
        assert mine != other and str(os.getpid()) in mine
        for part in (mine, other):
            with open(part, 'w') as file:
                file.write(part)
    assert (tmp_path / 'x').read_text() == mine and os.listdir(tmp_path) == ['x']


def test_a_folder_is_there_when_it_is_whole(tmp_path):
    path = str(tmp_path / 'x.dcp')
    for content in ('one', 'two'):
        with atomic_folder(path) as part:
            assert os.listdir(part) == []
            atomic_write(os.path.join(part, 'file'), content)
            assert not os.path.exists(path) or content == 'two'
        assert (tmp_path / 'x.dcp' / 'file').read_text() == content
    assert os.listdir(tmp_path) == ['x.dcp']


@pytest.mark.parametrize('error, raised', [(OSError(28, 'No space left on device'), SaveError),
                                           (ValueError('x'), ValueError)])
def test_an_error_leaves_the_earlier_folder(error, raised, tmp_path):
    path = str(tmp_path / 'x')
    with atomic_folder(path) as part:
        atomic_write(os.path.join(part, 'file'), 'one')
    with pytest.raises(raised, match='iB were free on its disk' if raised is SaveError else 'x'):
        with atomic_folder(path) as part:
            atomic_write(os.path.join(part, 'file'), 'two')
            raise error
    assert (tmp_path / 'x' / 'file').read_text() == 'one' and os.listdir(tmp_path) == ['x']


def test_an_earlier_folder_keeps_a_name_until_the_new_one_has_it(tmp_path, monkeypatch):
    """A kill between the renames leaves both, under names that count as half-written."""
    path, renamed = str(tmp_path / 'x.dcp'), []
    os.mkdir(path)
    os.mkdir(path + PART)
    rename = os.rename

    def note(old, new):
        renamed.append((os.path.basename(old), os.path.basename(new)))
        rename(old, new)

    monkeypatch.setattr(os, 'rename', note)
    commit_folder(path)
    assert renamed == [('x.dcp', 'x.old.dcp.part'), ('x.dcp.part', 'x.dcp')]
    assert os.listdir(tmp_path) == ['x.dcp']


def test_a_folder_in_a_folder_that_is_not_there(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(SaveError, match='hub was not written'):
        with atomic_folder(str(tmp_path / 'file' / 'hub')):
            pass


def test_a_link_is_replaced(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / name).write_text(name)
        replace_link(str(tmp_path / 'link'), str(tmp_path / name))
        assert os.readlink(tmp_path / 'link') == name
    with pytest.raises(SaveError, match='link was not written'):
        replace_link(str(tmp_path / 'no' / 'link'), str(tmp_path / 'a'))
