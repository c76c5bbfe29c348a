"""The sdist and the wheel: what is in them, and what installing and removing them does.

Nothing is fetched: packages are built by the setuptools of this environment, and installed into
environments that see its packages by links.
"""
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path, PurePosixPath

import pytest
from helpers.commands import ROOT, run
from helpers.data import draw_data, write_config
from packaging.metadata import Metadata

pytestmark = pytest.mark.slow
HOOK = {'mmcv_without_ops.py', 'mmcv_without_ops.pth'}
OURS = ('mmseg_custom', '__editable__', 'mmcv_without_ops', '__pycache__')
PIP = ['-m', 'pip', '--disable-pip-version-check', '-q']
OPTIONS = ['--no-deps', '--no-index', '--no-build-isolation']


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A copy of what packages are built from, since building writes beside it."""
    folder = tmp_path_factory.mktemp('source')
    for name in ('mmseg_custom', 'configs', 'tools', 'examples', 'requirements', 'scripts'):
        shutil.copytree(ROOT / name, folder / name,
                        ignore=shutil.ignore_patterns('__pycache__'))
    for path in ROOT.glob('[!.]*.*'):
        if path.is_file():
            shutil.copy(path, folder)
    for name in ('LICENSE', 'NOTICE', 'Makefile'):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope='module')
def sdist(source):
    code = 'from setuptools import build_meta; print(build_meta.build_sdist("dist"))'
    run('python', '-c', code, cwd=source)
    return next((source / 'dist').glob('*.tar.gz'))


@pytest.fixture(scope='module')
def wheel(sdist):
    """A wheel that is built from the sdist alone."""
    run('python', *PIP, 'wheel', *OPTIONS, '-w', sdist.parent, sdist, cwd=sdist.parent)
    return next(sdist.parent.glob('*.whl'))


class Environment:
    """A virtual environment that has the packages of this one, but for the project itself."""

    def __init__(self, folder):
        subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
        self.python = folder / 'bin' / 'python'
        self.packages = Path(sysconfig.get_path('purelib', vars={'base': str(folder)}))
        for path in Path(sysconfig.get_path('purelib')).iterdir():
            if path.name != 'mmcv' and not path.name.startswith(OURS):
                (self.packages / path.name).symlink_to(path)
        (self.packages / 'mmcv').mkdir()
        for path in (Path(sysconfig.get_path('purelib')) / 'mmcv').iterdir():
            if path.name not in ('_ext.py', '__pycache__'):
                (self.packages / 'mmcv' / path.name).symlink_to(path)
        self.folder = folder

    def run(self, *words):
        """Runs Python in the environment's folder; returns what it prints."""
        env = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
        done = subprocess.run([self.python, *map(str, words)], cwd=self.folder, text=True, env=env,
                              capture_output=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip()

    def install(self, *what):
        """Installs by pip from local files."""
        self.run(*PIP, 'install', *OPTIONS, *what)

    def contents(self):
        """Returns what is in site-packages, and in mmcv's folder."""
        return {path for folder in (self.packages, self.packages / 'mmcv')
                for path in folder.iterdir() if path.name != '__pycache__'}


@pytest.fixture
def environment(tmp_path):
    return Environment(tmp_path / 'venv')


def modules_of_the_project():
    return {str(path.relative_to(ROOT)) for path in (ROOT / 'mmseg_custom').rglob('*')
            if path.is_file() and '__pycache__' not in path.parts}


def test_wheel_holds_the_package_and_the_hook(wheel):
    assert wheel.name.endswith('-py3-none-any.whl')
    assert wheel.stat().st_size < 1e6  # bytes
    names = {name for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in name}
    hook_in_place = 'mmseg_custom/compat/mmcv_without_ops.pth'
    assert names == (modules_of_the_project() | HOOK) - {hook_in_place}


def test_sdist_holds_what_is_needed_to_train(sdist):
    names = {PurePosixPath(name).relative_to(PurePosixPath(name).parts[0])
             for name in tarfile.open(sdist).getnames()}
    tracked = {path.relative_to(ROOT) for part in ('configs', 'tools', 'requirements')
               for path in (ROOT / part).rglob('*.*') if '__pycache__' not in path.parts}
    for path in {*tracked, *map(Path, modules_of_the_project()), Path('slurm_train.sh'),
                 Path('scripts/setup_env.sh'), Path('examples/demo_data/scene.py')}:
        assert PurePosixPath(path) in names
    assert not [name for name in names if name.parts[:1] in (('tests',), ('benchmarks',))]


def test_metadata_is_valid(wheel):
    (name,) = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith('/METADATA')]
    metadata = Metadata.from_email(zipfile.ZipFile(wheel).read(name), validate=True)
    assert metadata.license_expression == 'Apache-2.0'
    assert metadata.license_files == ['LICENSE', 'NOTICE']
    assert metadata.description_content_type == 'text/markdown' and metadata.description
    assert metadata.requires_python == (
        ROOT / 'setup.py').read_text().split("python_requires='")[1].split("'")[0]
    assert {'onnx', 'hub'} <= set(metadata.provides_extra)


@pytest.mark.parametrize('editable', [False, True])
def test_installing_touches_nothing_of_mmcv_and_leaves_nothing(environment, request, editable):
    before = environment.contents()
    what = request.getfixturevalue('source' if editable else 'wheel')
    environment.install(*(['-e'] if editable else []), what)
    new = {path.name for path in environment.contents() - before}
    assert HOOK < new and all(name.startswith(OURS) for name in new)
    assert (environment.packages / 'mmseg_custom').exists() is not editable
    assert environment.run('-c', 'import mmcv._ext; print(mmcv._ext.__spec__.origin)') == str(
        environment.packages / 'mmcv_without_ops.py')
    # mmseg before the package, as mmseg's own tools import it, and from another folder.
    assert 'InternViT6B' in environment.run(
        '-W', 'ignore', '-c', 'import mmseg.models, mmseg_custom; print(mmseg.models.BACKBONES)')
    environment.run(*PIP, 'uninstall', '-y', 'mmseg_custom')
    assert environment.contents() == before
    assert not list(environment.packages.glob('__pycache__/mmcv_without_ops*'))


def test_update_of_an_installation_that_wrote_into_mmcv(environment, wheel, tmp_path):
    """Until 1.0.0 a file of the wheel was put into mmcv's folder."""
    old = tmp_path / 'mmseg_custom-0.9.0-py3-none-any.whl'
    with zipfile.ZipFile(old, 'w') as file:
        info = 'mmseg_custom-0.9.0.dist-info/'
        file.writestr('mmcv/_ext.py', 'old = True\n')
        file.writestr('mmseg_custom/__init__.py', '')
        file.writestr(info + 'METADATA', 'Metadata-Version: 2.1\nName: mmseg_custom\n'
                                         'Version: 0.9.0\n')
        file.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\n'
                                      'Tag: py3-none-any\n')
        file.writestr(info + 'RECORD', ''.join(f'{name},,\n' for name in (
            'mmcv/_ext.py', 'mmseg_custom/__init__.py', info + 'METADATA', info + 'WHEEL',
            info + 'RECORD')))
    environment.install(old)
    assert environment.run('-c', 'import mmcv._ext; print(mmcv._ext.old)') == 'True'
    environment.install(wheel)
    assert not (environment.packages / 'mmcv' / '_ext.py').exists()
    assert 'mmcv_without_ops' in environment.run('-c', 'import mmcv._ext as e; print(e.__spec__)')


def test_tool_of_mmseg_trains_with_an_installed_wheel(environment, wheel, tmp_path):
    environment.install(wheel)
    config = write_config(tmp_path / 'config.py', draw_data(tmp_path))
    environment.run('-W', 'ignore', environment.packages / 'mmseg/.mim/tools/train.py', config,
                    '--work-dir', tmp_path / 'run', '--seed', 0)
    assert (tmp_path / 'run' / 'latest.pth').exists()
    installed = PathDistribution(next(environment.packages.glob('mmseg_custom-*.dist-info')))
    assert not [path for path in installed.files if path.parts[0] == 'mmcv']
