"""Set-up and installation: scripts/setup_env.sh with stand-ins for what it calls, and setup.py.

No test here uses the network or installs anything of size. The script runs in a copy of what it
reads, with a PATH that holds only what a bare Debian has, and with programs that pretend.
"""
import concurrent.futures
import importlib
import importlib.machinery
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAND_IN = ROOT / 'mmseg_custom' / 'compat' / '_ext.py'
BARE_SYSTEM = 'sh cat cp tr cksum dirname awk ls rm mkdir sed grep tail id env flock sleep'.split()

# Pretends to be a Python whose venvs hold it again, and whose pip writes down its arguments.
FAKE_PYTHON = """#!/bin/sh
case $1 in
    -c)
        case $2 in
            *version*) echo "${{FAKE_VERSION:-3.11}} $0" ;;
            *ensurepip*) exit ${{FAKE_NO_VENV:-0}} ;;
            *compile_dir*) {compiling} ;;
        esac ;;
    -m)
        case $2 in
            venv) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo venv >>"{calls}" ;;
            pip) shift 2; echo "pip $*" >>"{calls}"; {pip} ;;
        esac ;;
esac
"""


def load_stand_in():
    """Loads mmseg_custom/compat/_ext.py by itself, as mmcv would find it."""
    spec = importlib.util.spec_from_file_location('stand_in', STAND_IN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def default_signals():
    """Undoes what a shell does to commands in the background, and nohup: they ignore signals."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Checkout:
    """A copy of what the set-up script reads, and a bare PATH to run it with."""

    def __init__(self, folder):
        self.folder = folder / 'a clone'
        for part in ('scripts', 'requirements'):
            shutil.copytree(ROOT / part, self.folder / part)
        shutil.copy(ROOT / 'setup.py', self.folder)
        for part in ('mmseg_custom/version.py', 'mmseg_custom/compat/_ext.py'):
            (self.folder / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / part, self.folder / part)
        self.bin = folder / 'bin'
        self.bin.mkdir()
        self.calls = folder / 'calls'
        for name in BARE_SYSTEM:
            if shutil.which(name):
                (self.bin / name).symlink_to(shutil.which(name))
        self.program('df', 'echo; echo fs 9 9 99000000 9 /')
        self.fake_python()

    def program(self, name, body):
        """Puts a shell script on the PATH."""
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(body if body.startswith('#!') else f'#!/bin/sh\n{body}\n')
        path.chmod(0o755)

    def fake_python(self, name='python3', pip=':', compiling=':'):
        """Puts a pretended Python on the PATH."""
        self.program(name, FAKE_PYTHON.format(calls=self.calls, pip=pip, compiling=compiling))

    def setup(self, **env):
        """Runs the script; returns its exit code, its words, and the calls of pip and venv."""
        self.calls.write_text('')
        run = subprocess.run(['sh', 'scripts/setup_env.sh'], cwd=self.folder, text=True,
                             env={'PATH': str(self.bin), 'HOME': str(self.folder), **env},
                             capture_output=True, stdin=subprocess.DEVNULL,
                             preexec_fn=default_signals)
        return run.returncode, run.stdout + run.stderr, self.calls.read_text().splitlines()

    def refusal(self, **env):
        """Runs the script, which has to fail with one line; returns that line."""
        code, words, _ = self.setup(**env)
        lines = [line for line in words.splitlines() if line.startswith('setup: ')]
        assert code == 1
        assert len(words.splitlines()) == len(lines), words
        return lines[-1]


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_second_run_does_nothing(checkout):
    code, words, calls = checkout.setup()
    assert code == 0, words
    assert calls[0] == 'venv' and len(calls) == 5, calls
    assert checkout.setup() == (0, '', [])


@pytest.mark.parametrize('changed', ['requirements/test.txt', 'setup.py'])
def test_changed_requirements_are_installed_without_starting_anew(checkout, changed):
    checkout.setup()
    with open(checkout.folder / changed, 'a') as file:
        file.write('# changed\n')
    code, words, calls = checkout.setup()
    assert code == 0, words
    assert 'venv' not in calls and len(calls) == 4
    assert checkout.setup() == (0, '', [])


def test_killed_set_up_is_started_anew(checkout):
    checkout.fake_python(pip='case $* in *torch*|*runtime*) kill -9 $PPID;; esac')
    code, _, _ = checkout.setup()
    assert code == -9
    leftover = checkout.folder / '.venv' / 'half-written'
    leftover.touch()
    checkout.fake_python()
    code, words, calls = checkout.setup()
    assert code == 0, words
    assert calls[0] == 'venv' and not leftover.exists()
    assert checkout.setup() == (0, '', [])


def test_update_that_fails_to_resolve_keeps_the_environment(checkout):
    checkout.setup()
    with open(checkout.folder / 'requirements' / 'runtime.txt', 'a') as file:
        file.write('new-package==1\n')
    environment = checkout.folder / '.venv'
    fake = environment / 'bin' / 'python'
    whole = fake.read_text()
    fake.write_text(FAKE_PYTHON.format(
        calls=checkout.calls, pip='echo "ERROR: connection broken"; exit 1', compiling=':'))
    (environment / 'kept').touch()
    assert 'network' in checkout.refusal()
    fake.write_text(whole)
    assert checkout.setup()[0] == 0
    assert (environment / 'kept').exists()


def test_moved_folder_and_other_python_are_started_anew(checkout):
    checkout.setup()
    checkout.folder = checkout.folder.rename(checkout.folder.with_name('moved'))
    assert checkout.setup()[2][0] == 'venv'
    checkout.fake_python('other')
    assert checkout.setup(PYTHON='other')[2] == []
    fake = checkout.bin / 'other'
    fake.write_text(fake.read_text().replace('FAKE_VERSION:-3.11', 'FAKE_VERSION:-3.12'))
    assert checkout.setup(PYTHON='other')[2][0] == 'venv'


def test_environment_of_someone_else_is_left_alone(checkout):
    theirs = checkout.folder / '.venv' / 'theirs'
    theirs.parent.mkdir()
    theirs.touch()
    assert 'was not made by this script' in checkout.refusal()
    assert theirs.exists()


@pytest.mark.parametrize('version', ['3.9', '3.15', '2.7'])
def test_python_out_of_range(checkout, version):
    assert f'python3 is Python {version}' in checkout.refusal(FAKE_VERSION=version)


def test_python_in_range_under_another_name_is_found(checkout):
    checkout.program('python3', 'echo 3.15 /usr/bin/python3')
    checkout.fake_python('python3.11')
    code, words, _ = checkout.setup()
    assert code == 0 and 'Python 3.11' in words


def test_no_python(checkout):
    (checkout.bin / 'python3').unlink()
    line = checkout.refusal()
    assert 'python3 is missing' in line and 'apt-get install python3 python3-venv' in line
    assert '/no/such/python is missing' in checkout.refusal(PYTHON='/no/such/python')


def test_no_venv_module(checkout):
    assert 'apt-get install python3.11-venv' in checkout.refusal(FAKE_NO_VENV='1')


def test_missing_venv_module_is_installed_where_that_is_possible(checkout):
    checkout.program('id', 'echo 0')
    checkout.program('apt-get', f'case $* in *install*python3.11-venv*) : ;; *) exit 1 ;; esac\n'
                                f': >"{checkout.bin}/has-venv"')
    fake = checkout.bin / 'python3'
    fake.write_text(fake.read_text().replace(
        'exit ${FAKE_NO_VENV:-0}', f'[ -e "{checkout.bin}/has-venv" ] || exit 1'))
    code, words, _ = checkout.setup()
    assert code == 0, words
    assert 'installing python3.11-venv' in words


def test_missing_python_is_installed_where_that_is_possible(checkout):
    (checkout.bin / 'python3').rename(checkout.bin / 'not-yet')
    checkout.program('id', 'echo 0')
    checkout.program('apt-get', f'case $* in *install*python3-venv*) '
                                f'cp "{checkout.bin}/not-yet" "{checkout.bin}/python3" ;; esac')
    code, words, calls = checkout.setup()
    assert code == 0, words
    assert calls[0] == 'venv'


@pytest.mark.skipif(not shutil.which('flock'), reason='flock is not installed')
def test_two_at_once_do_the_work_once(checkout):
    checkout.fake_python(pip='sleep .2')
    with concurrent.futures.ThreadPoolExecutor() as pool:
        runs = list(pool.map(lambda _: checkout.setup(), range(2)))
    assert [code for code, _, _ in runs] == [0, 0], runs
    assert checkout.calls.read_text().splitlines().count('venv') == 1


def test_disk_too_small(checkout):
    checkout.program('df', 'echo; echo fs 9 9 2048000 9 /')
    assert 'not enough disk space' in (line := checkout.refusal())
    assert '2000 MiB free' in line


@pytest.mark.parametrize(('pip', 'expected'), [
    ("echo \"WARNING: Retrying after connection broken by 'NewConnectionError'\"; exit 1",
     'the package index does not answer'),
    ('echo "ERROR: Could not install: [Errno 28] No space left on device"; exit 1', 'disk is full'),
    ('echo "ERROR: No matching distribution found for torch"; exit 1', 'No matching distribution'),
    ('exit 137', 'code 137'),
])
def test_failing_pip(checkout, pip, expected):
    checkout.fake_python(pip=pip)
    assert expected in checkout.refusal()


def test_set_up_waits_for_the_bytecode_but_does_not_need_it(checkout):
    checkout.fake_python(compiling=f'sleep .2; echo compiled >>"{checkout.calls}"; exit 1')
    code, words, calls = checkout.setup()
    assert code == 0, words
    assert calls.count('compiled') == 1
    assert checkout.setup() == (0, '', [])


@pytest.mark.parametrize(('ending', 'expected'), [
    ('exit 1', 1), ('kill -TERM $PPID', 143), ('kill -INT $PPID', 130), ('kill -HUP $PPID', 129),
])
def test_set_up_that_ends_early_stops_compiling(checkout, ending, expected):
    pid_file = checkout.folder / 'pid'
    until_compiling = f'until [ -s "{pid_file}" ]; do sleep .05; done'
    checkout.fake_python(compiling=f'echo $$ >"{pid_file}"; exec sleep 60',
                         pip=f'case $* in *openmmlab*) {until_compiling}; {ending} ;; esac')
    code, words, _ = checkout.setup()
    assert code == expected, words
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_read_only_folder(checkout):
    checkout.folder.chmod(0o555)
    try:
        assert 'cannot be written to' in checkout.refusal()
    finally:
        checkout.folder.chmod(0o755)


def test_stand_in_fails_when_called_and_not_before():
    module = load_stand_in()
    function = module.nms_forward
    assert hasattr(module, 'any_other_name')
    with pytest.raises(RuntimeError, match='nms_forward needs mmcv-full built with its ops'):
        function(1, key=2)
    with pytest.raises(AttributeError, match='__path__'):
        _ = module.__path__
    assert module.get_compiler_version() == module.get_compiling_cuda_version() == 'n/a'


def test_compiled_ops_win_over_the_stand_in(tmp_path):
    package = tmp_path / 'ops_package'
    package.mkdir()
    shutil.copy(STAND_IN, package)

    def found():
        return importlib.machinery.PathFinder.find_spec('_ext', [str(package)]).origin

    assert found() == str(package / '_ext.py')
    compiled = package / f'_ext{importlib.machinery.EXTENSION_SUFFIXES[0]}'
    compiled.touch()
    importlib.invalidate_caches()
    assert found() == str(compiled)


def make_small_venv(folder):
    """Makes a venv that sees pip and setuptools of this one, with an empty mmcv in it."""
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
    packages = Path(sysconfig.get_path('purelib', vars={'base': str(folder)}))
    ours = Path(sysconfig.get_path('purelib'))
    for pattern in ('pip*', 'setuptools*', 'pkg_resources', '_distutils_hack'):
        for path in ours.glob(pattern):
            (packages / path.name).symlink_to(path)
    (packages / 'mmcv').mkdir()
    (packages / 'mmcv' / '__init__.py').touch()
    return folder / 'bin' / 'python', packages


PIP_OPTIONS = ['--disable-pip-version-check', '-q', '--no-deps', '--no-index',
               '--no-build-isolation']


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A copy of what the package is built from, since building writes beside it."""
    folder = tmp_path_factory.mktemp('source')
    shutil.copytree(ROOT / 'mmseg_custom', folder / 'mmseg_custom',
                    ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'pyproject.toml'):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope='module')
def wheel(source):
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', *PIP_OPTIONS, '-w', 'dist', '.'],
                   check=True, cwd=source)
    return next((source / 'dist').glob('*.whl'))


def test_wheel_is_small(wheel):
    assert wheel.stat().st_size < 1e6  # bytes


@pytest.mark.parametrize('editable', [False, True])
def test_installing_puts_the_stand_in_beside_mmcv(tmp_path, request, editable):
    python, packages = make_small_venv(tmp_path / 'venv')
    pip = [python, '-m', 'pip']
    what = request.getfixturevalue('source' if editable else 'wheel')
    subprocess.run([*pip, 'install', *PIP_OPTIONS, *(['-e'] if editable else []), what], check=True,
                   cwd=tmp_path)
    installed = packages / 'mmcv' / '_ext.py'
    assert installed.read_bytes() == STAND_IN.read_bytes()
    version = subprocess.run(
        [python, '-c', 'import importlib.metadata as m; print(m.version("mmseg_custom"))'],
        check=True, text=True, capture_output=True, cwd=tmp_path).stdout.strip()
    assert f"__version__ = '{version}'" in (ROOT / 'mmseg_custom' / 'version.py').read_text()
    assert (packages / 'mmseg_custom' / 'version.py').exists() is not editable
    subprocess.run([*pip, 'uninstall', '-q', '-y', 'mmseg_custom'], check=True, cwd=tmp_path)
    assert not installed.exists()
    assert (packages / 'mmcv' / '__init__.py').exists()


def test_published_names_are_one_command_away():
    """The Makefile documents what the README and .ci/run rely on; .ci/run calls nothing else."""
    words = subprocess.run(['make', '-s', '-C', ROOT], check=True, text=True,
                           capture_output=True).stdout
    for target in ('setup', 'demo', 'test', 'test-slow', 'lint', 'clean'):
        assert f'make {target} ' in words
    readme = (ROOT / 'README.md').read_text()
    for command in re.findall('make [a-z-]+(?= <)', (ROOT / '.ci' / 'run').read_text()):
        assert command in readme


def test_version_is_the_same_everywhere():
    version = re.search("'(.+)'", (ROOT / 'mmseg_custom' / 'version.py').read_text()).group(1)
    assert f'\nversion: {version}\n' in (ROOT / 'CITATION.cff').read_text()
    assert f'\n## [{version}] - ' in (ROOT / 'CHANGELOG.md').read_text()
