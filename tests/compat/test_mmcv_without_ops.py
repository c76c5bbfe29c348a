"""The stand-in for mmcv's compiled operators, and the finder that a start of Python adds."""
import importlib.machinery
import shutil
import subprocess
import sys

import pytest
from helpers.commands import ROOT

from mmseg_custom import compat
from mmseg_custom.compat import mmcv_without_ops

FILES = [ROOT / f'mmseg_custom/compat/mmcv_without_ops.{ending}' for ending in ('py', 'pth')]


@pytest.fixture
def site(tmp_path):
    """A site-packages with the two files that an installation puts there, and with an empty mmcv.

    Calling it with Python code runs that in a fresh process without other packages.
    """
    for path in FILES:
        shutil.copy(path, tmp_path)
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').touch()

    def start(code: str) -> str:
        added = f'import site, sys; site.addsitedir({str(tmp_path)!r}); '
        return subprocess.run([sys.executable, '-I', '-S', '-c', added + code], check=True,
                              text=True, capture_output=True).stdout.strip()

    start.folder = tmp_path
    return start


def test_stand_in_fails_when_called_and_not_before():
    function = mmcv_without_ops.missing_op('nms_forward')
    with pytest.raises(RuntimeError, match='_ext.nms_forward needs mmcv-full built with its ops'):
        function(1, key=2)
    with pytest.raises(AttributeError, match='__path__'):
        mmcv_without_ops.missing_op('__path__')


def test_mmcv_finds_the_stand_in_as_soon_as_python_runs(site):
    assert site('import mmcv._ext as ext; print(ext.any_name.__name__, ext.__spec__.origin, '
                'ext.get_compiler_version(), ext.get_compiling_cuda_version())') == (
        f'any_name {site.folder}/mmcv_without_ops.py n/a n/a')
    assert site('import importlib.util as u; print(u.find_spec("mmcv._other"))') == 'None'


def test_start_of_python_imports_nothing_else(site):
    before = site('print(*sorted(sys.modules))').split()
    (site.folder / 'mmcv_without_ops.pth').write_text('#\n')  # reading it takes an encoding
    assert set(before) - set(site('print(*sorted(sys.modules))').split()) == {'mmcv_without_ops'}


@pytest.mark.parametrize('name', [f'_ext{importlib.machinery.EXTENSION_SUFFIXES[0]}', '_ext.py'])
def test_operators_of_mmcv_itself_win(site, name):
    (site.folder / 'mmcv' / name).touch()  # _ext.py: what earlier versions installed
    assert site('import importlib.util as u; print(u.find_spec("mmcv._ext").origin)') == (
        f'{site.folder}/mmcv/{name}')


def test_finder_is_added_once(monkeypatch):
    other = importlib.machinery.PathFinder
    monkeypatch.setattr(sys, 'meta_path', [other])
    mmcv_without_ops.add_finder()
    mmcv_without_ops.add_finder()
    assert sys.meta_path == [other, mmcv_without_ops.StandInFinder]


def test_copy_that_is_not_installed_brings_the_stand_in_itself(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmcv._ext', None)  # cannot be imported
    compat.stand_in_for_mmcv_ops()
    with pytest.raises(RuntimeError, match='nms needs mmcv-full built with its ops'):
        sys.modules['mmcv._ext'].nms()
