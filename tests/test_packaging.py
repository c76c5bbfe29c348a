"""Set-up: scripts/setup_env.sh with stand-ins for what it calls.

No test here uses the network or installs anything of size. The script runs in a copy of what it
reads, with a PATH that holds only what a bare Debian has, and with programs that pretend.
"""
import concurrent.futures
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
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
        for part in ('mmseg_custom/version.py', 'mmseg_custom/compat/mmcv_without_ops.py',
                     'mmseg_custom/compat/mmcv_without_ops.pth'):
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
    checkout.fake_python(pip='case $* in *dev.lock*) kill -9 $PPID;; esac')
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


def test_all_packages_are_checked_against_the_locks_unless_told_otherwise(checkout):
    calls = checkout.setup()[2]
    assert [call.split('--require-hashes ')[1] for call in calls if 'hashes' in call] == [
        '-r requirements/dev.lock', '-r requirements/openmmlab.lock']
    assert checkout.setup(LOCKED='0') == (0, '', []), 'a set-up that is done stays as it is'
    shutil.rmtree(checkout.folder / '.venv')
    calls = checkout.setup(LOCKED='0')[2]
    assert len(calls) == 5 and '.lock' not in ' '.join(calls)
    assert 'LOCKED=no: expected 1' in checkout.refusal(LOCKED='no')


def test_the_first_package_is_checked_too(checkout):
    checkout.fake_python(pip='case $* in *setuptools*) for last; do :; done; '
                             f'cp "$last" "{checkout.folder}/asked" ;; esac')
    code, words, _ = checkout.setup()
    assert code == 0, words
    asked = (checkout.folder / 'asked').read_text()
    assert re.match(r'setuptools==\S+ (?:\\\n +--hash=sha256:[0-9a-f]{64} ?)+\n?', asked)
    assert asked.count('==') == 1


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
    ('echo "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."; '
     'echo "    torch==2.11.0 from file:///wheels/torch.whl:"; '
     'echo "        Expected sha256 0"; exit 1', 'knows: torch==2.11.0. If that is your own build, '
     'LOCKED=0 make setup'),
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
