import shutil
import sysconfig

import pytest

from mmseg_custom.distributed.compiler import require_compiler
from mmseg_custom.errors import InputError


def test_what_compiling_for_a_gpu_needs(monkeypatch, tmp_path):
    include = tmp_path / 'include'
    monkeypatch.delenv('CC', raising=False)
    monkeypatch.setattr(sysconfig, 'get_path', lambda name: str(include))
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    with pytest.raises(InputError, match='engine.compile=True .*no C compiler .*: install gcc'):
        require_compiler('engine.compile=True')
    for found in ('gcc', 'clang'):
        monkeypatch.setattr(shutil, 'which', lambda name, found=found: name == found)
        with pytest.raises(InputError, match=f'{include}/Python.h is missing: .*python3-dev'):
            require_compiler('engine.compile=True')
    include.mkdir()
    (include / 'Python.h').touch()
    require_compiler('engine.compile=True')
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    monkeypatch.setenv('CC', '/opt/cc')
    require_compiler('engine.compile=True')
