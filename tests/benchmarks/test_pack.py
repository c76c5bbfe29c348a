"""What is packed for a machine without a network."""
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.commands import ROOT, run

from benchmarks import pack


@pytest.mark.slow
def test_packages_are_pure_and_complete(tmp_path):
    """All that imports of the packed ones need is packed, or comes with PyTorch's image."""
    folder = tmp_path / 'packages'
    (folder / 'old').mkdir(parents=True)
    versions = pack.pack(folder)
    assert versions['mmcv-full'] == '1.7.2' and not (folder / 'old').exists()
    assert {'mmcv', 'mmseg', 'addict', 'yapf', 'prettytable', 'VERSIONS'} <= {
        path.name for path in folder.iterdir()}
    assert not [path for path in folder.rglob('*') if path.suffix == '.so']
    run('python', '-c', 'import sys; sys.modules["mmcls"] = None\n'
        'import mmseg_custom, mmcv, mmseg.apis, mmseg.models\n'
        f'assert all(m.__file__.startswith({str(folder)!r}) for m in (mmcv, mmseg))',
        PYTHONPATH=f'{folder}:{ROOT}')


def test_compiled_packages_are_refused():
    files = [Path('mmcv/_ext.cpython-311-x86_64-linux-gnu.so'), Path('mmcv/__init__.py')]
    for name, refused in (('mmcv-full', True), ('wcwidth', False)):
        found = SimpleNamespace(files=files, metadata=dict(Name=name))
        if refused:
            with pytest.raises(SystemExit, match='mmcv-full has compiled files'):
                pack.files_of(found)
        else:
            assert pack.files_of(found) == files[1:]
