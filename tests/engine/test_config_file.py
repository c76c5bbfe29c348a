import os
import sys

import pytest

from mmseg_custom.engine.config_file import is_copy, path_of_copy, read_config
from mmseg_custom.errors import InputError


@pytest.mark.filterwarnings('error::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize(('text', 'message'), [
    ('# für\nx = 1'.encode('latin-1'), 'some.py is not UTF-8 .*`iconv -f LATIN1 -t UTF-8'),
    ('x = 1'.encode('utf-16'), 'some.py is not UTF-8 .*`iconv -f UTF-16 -t UTF-8'),
    ('x = 1'.encode('utf-32'), 'some.py is not UTF-8 .*`iconv -f UTF-32 -t UTF-8'),
    ('x = "ü"'.encode('utf-16-le'), 'some.py is not UTF-8 .*`iconv -f UTF-16LE -t UTF-8'),
    ('x = 1'.encode('utf-16-be'), 'some.py holds bytes of 0: it is UTF-16BE, or damaged'),
    (b'\xef\xbb\xbfx = 1', 'some.py is not Python: .* without a byte order mark'),
    (b'x = (\n', "some.py is not Python: '\\(' was never closed, line 1"),
    (b'x = 1\n\ny = 1 / 0\n', 'some.py, line 3: ZeroDivisionError: division by zero'),
    (b"_base_ = 'absent.py'", 'some.py: its _base_ .*absent.py does not exist'),
    (b"custom_imports = dict(imports=['no_such_module'])",
     "custom_imports: there is no module 'no_such_module': .* PYTHONPATH"),
    (b"custom_imports = dict(imports=['broken_plugin'])",
     "the module 'broken_plugin' fails when it is imported: NameError: name 'y' is not defined"),
    (b"custom_imports = dict(imports=['needy_plugin'])",
     "'needy_plugin' fails when it is imported: ModuleNotFoundError: No module named 'needed'"),
    (b'import sys\nsys.exit(0)', 'some.py, line 2: SystemExit: 0'),
    (b"custom_imports = dict(imports=['leaving_plugin'])",
     "'leaving_plugin' fails when it is imported: SystemExit: 0"),
    (b'custom_imports = 5', 'some.py: TypeError'),
    (b'exit(0)', 'some.py, line 1: SystemExit: 0'),
    (b'x = (i for i in [1])', "some.py: TypeError: cannot pickle 'generator' object"),
])
def test_a_config_that_cannot_be_read_is_named_in_one_line(tmp_path, monkeypatch, text, message):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / 'broken_plugin.py').write_text('x = y')
    (tmp_path / 'needy_plugin.py').write_text('import needed')
    (tmp_path / 'leaving_plugin.py').write_text('raise SystemExit(0)')
    (tmp_path / 'some.py').write_bytes(text)
    with pytest.raises(InputError, match=message) as raised:
        read_config(str(tmp_path / 'some.py'))
    assert '\n' not in str(raised.value)


def test_bases_that_lead_back_to_themselves_are_refused(tmp_path):
    (tmp_path / 'some.py').write_text("_base_ = 'some.py'")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    try:
        with pytest.raises(InputError, match='lead back to themselves'):
            read_config(str(tmp_path / 'some.py'))
    finally:
        sys.setrecursionlimit(limit)


def test_a_fault_in_a_base_is_said_of_the_base(tmp_path):
    (tmp_path / 'base.py').write_text('x = 1\nz = y\n')
    (tmp_path / 'some.py').write_text("_base_ = 'base.py'")
    with pytest.raises(InputError, match="base.py, line 2: NameError: name 'y' is not defined"):
        read_config(str(tmp_path / 'some.py'))


@pytest.mark.parametrize('text', ["_base_ = 'base.py'", "model = dict( type='A')  # mine"])
def test_a_config_in_the_work_dir_is_not_the_copy(tmp_path, text):
    config, folder = tmp_path / 'some.py', tmp_path / 'there'
    (tmp_path / 'base.py').write_text("model = dict(type='A')\n")
    config.write_text(text)
    assert path_of_copy(str(folder), str(config)) == str(folder / 'some.py')
    folder.symlink_to(tmp_path)
    copy = path_of_copy(str(folder), str(config))
    assert copy == str(folder / 'some_resolved.py') and not is_copy(str(config))
    with open(copy, 'w') as file:
        file.write(read_config(str(config)).dump())
    assert is_copy(copy) and path_of_copy(str(tmp_path), copy) == os.fspath(
        tmp_path / 'some_resolved.py')
