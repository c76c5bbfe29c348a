"""Faults of the machine: full disks, folders that take nothing, dead workers, stopped ranks."""
import os
import signal
import subprocess
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from helpers.data import SMALL_LINEAR, draw_data, write_config
from helpers.faults import FIGURES, Case, Outcome, start_guarded
from helpers.results import write_some
from helpers.runs import assert_same_end, final_state, spread, wait_for, write_small_config

pytestmark = pytest.mark.slow
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason='only root mounts file systems')
ENGINES = [(1, 'single'), (2, 'ddp'), (2, 'fsdp2')]


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    return write_small_config(tmp_path_factory.mktemp('machine'))


@pytest.fixture(scope='module')
def runs(zygote, config, tmp_path_factory) -> Path:
    """A run of each engine, on a sound machine, and what the tools start from."""
    folder = tmp_path_factory.mktemp('whole')
    for ranks, engine in ENGINES:
        zygote.train(config, '--work-dir', folder / engine, '--seed', 5, *spread(ranks, engine),
                     ranks=ranks)
    data = draw_data(folder / 'data', train=8, val=2)
    with zipfile.ZipFile(folder / 'data.zip', 'w') as archive:
        for path in sorted(data.rglob('*')):
            archive.write(path, path.relative_to(data.parent))
    (folder / 'results').mkdir()
    write_some(write_config(folder / 'results' / 'config.py', data),
               folder / 'results' / 'eval_a.json')
    frozen = SMALL_LINEAR + "\nfeature_cache = dict(dir='none', views=3, seed=5)\n"
    write_config(folder / 'frozen.py', data, extra=frozen)
    return folder


@contextmanager
def disk(folder: Path, kilobytes: int):
    """A file system of its own."""
    folder.mkdir()
    subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={kilobytes}k', 'none', folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(['umount', '-l', folder], check=True)


@pytest.fixture(autouse=True)
def _counted():
    FIGURES.machines += 1


@ROOT_ONLY
@pytest.mark.parametrize('ranks, engine', ENGINES)
@pytest.mark.parametrize('kilobytes', [60, 1600])
@pytest.mark.parametrize('spare', [False, True])
def test_training_on_a_full_disk(zygote, config, runs, tmp_path, ranks, engine, kilobytes, spare):
    """It ends with its weights on a disk, the same bits, or it fails and says what is where."""
    log, options = tmp_path / 'log.txt', ['--spare-dir', tmp_path / 'spare'] if spare else []
    with disk(tmp_path / 'disk', kilobytes) as folder:
        processes = zygote.start_training(
            log, config, '--work-dir', folder / 'run', '--seed', 5, '--wait-for-disk', 1,
            *spread(ranks, engine), *options, ranks=ranks)
        codes, text = [zygote.wait(process) for process in processes], log.read_text()
        assert 'Traceback' not in text, text[-3000:]
        found = [path.parent for root in (folder, tmp_path / 'spare') for path in root.rglob(
            'iter_8.*') if path.suffix in ('.pth', '.dcp')]
        if codes != [0] * ranks:
            assert set(codes) == {1} and not spare and not found, text[-3000:]
            assert 'weights of iteration 8 are lost' in text.strip().splitlines()[-1]
            return
        FIGURES.wrong['lost files'] += not found
        end, expected = final_state(found[0]), final_state(runs / engine)
        assert end.keys() == expected.keys()
        assert all(torch.equal(end[name], value) for name, value in expected.items()
                   if isinstance(value, torch.Tensor))


def tools(runs: Path, config: Path) -> dict[str, tuple]:
    """Tools that write: the words of their commands, and the file that must be whole."""
    single = runs / 'single' / 'iter_8.pth'
    return {
        'convert': (lambda to: ['convert_weights.py', single, to / 'out.safetensors',
                                '--num-heads', 2], 'out.safetensors'),
        'convert to the hub': (lambda to: ['convert_weights.py', single, to / 'hub', '--to', 'hf',
                                           '--num-heads', 2], 'hub'),
        'merge': (lambda to: ['merge_checkpoint.py', runs / 'fsdp2' / 'iter_8.dcp',
                              to / 'out.pth'], 'out.pth'),
        'prepare': (lambda to: ['prepare_data.py', 'ade20k', runs / 'data.zip', '--out', to,
                                '--subset', '--workers', 1], 'ade20k.manifest.json'),
        'report': (lambda to: ['report.py', runs / 'results', '--out', to / 'page.html'],
                   'page.html'),
        'image_demo': (lambda to: ['image_demo.py', runs / 'data', config, single, '--out', to],
                       None),
        'test': (lambda to: ['test.py', config, single, '--eval', 'mIoU', '--work-dir', to], None),
        'test --show-dir': (lambda to: ['test.py', config, single, '--show-dir', to / 'show',
                                        '--work-dir', to], None),
        'test --format-only': (lambda to: [
            'test.py', config, single, '--format-only', '--work-dir', to, '--eval-options',
            f'imgfile_prefix={to}/files'], None),
        'cache': (lambda to: ['cache.py', 'build', runs / 'frozen.py', '--cfg-options',
                              f'feature_cache.dir={to}/cache'], None),
        'few_shot': (lambda to: ['few_shot.py', 'write', '--out', to], None),
        'demo data': (lambda to: ['make_demo_data.py', '--out', to / 'demo', '--train', 3, '--val',
                                  2], None),
        'train': (lambda to: ['train.py', config, '--work-dir', to / 'run', '--wait-for-disk', 0],
                  None),
        'sweep': (lambda to: ['sweep.py', runs / 'frozen.py', '--work-dir', to / 'sweep',
                              '--wait-for-disk', 0, '--lr', 1e-3, 1e-2], None),
    }


def whole_or_gone(name: str | None):
    def check(outcome: Outcome) -> str | None:
        if name and not (outcome.folder / 'to' / name).exists():
            return f'ended well without {name}'
        return None
    return check


@ROOT_ONLY
def test_tools_on_a_full_disk(runs, config, machine, assert_right):
    """Each ends in one line, or well and with its file."""
    def mounted(command, kilobytes):
        def make(folder):
            (folder / 'to').mkdir()
            subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={kilobytes}k', 'none',
                            folder / 'to'], check=True)
            return command(folder / 'to')
        return make
    try:
        assert_right([Case(f'disk of {kilobytes} kB: {name}', mounted(command, kilobytes),
                           whole_or_gone(target))
                      for name, (command, target) in tools(runs, config).items()
                      for kilobytes in (4, 24, 120)])
    finally:
        for line in Path('/proc/mounts').read_text().splitlines():
            if line.split()[1].startswith(str(machine.root)):
                subprocess.run(['umount', '-l', line.split()[1]], check=True)


@ROOT_ONLY
def test_tools_in_a_folder_that_takes_nothing(runs, config, assert_right):
    def case(name, command, mounts):
        def make(folder):
            (folder / 'to').mkdir()
            return command(folder / 'to')
        return Case(f'{mounts[0][0]}: {name}', make, bounds=dict(mounts=mounts), must_fail=True)
    # Paths in mounts are relative to the case's folder, where the tool runs.
    read_only = [['--bind', 'to', 'to'], ['-o', 'remount,bind,ro', 'to']]
    full = [['-t', 'tmpfs', '-o', 'size=4k,nr_inodes=1', 'none', 'to']]
    assert_right([case(name, command, mounts) for name, (command, _) in tools(
        runs, config).items() for mounts in (read_only, full)])


@ROOT_ONLY
@pytest.mark.parametrize('kilobytes', [64, 1024])
def test_little_shared_memory(config, assert_right, kilobytes):
    """Loader workers pass images in /dev/shm: it works, or one line says what to set."""
    assert_right([Case(
        f'/dev/shm of {kilobytes} kB', lambda folder: [
            'train.py', config, '--work-dir', folder / 'run', '--cfg-options',
            'data.workers_per_gpu=2', 'data.samples_per_gpu=16', *crops(448)],
        lambda outcome: None if list((outcome.folder / 'run').glob('iter_8.pth')) else 'no weights',
        bounds=dict(mounts=[['-t', 'tmpfs', '-o', f'size={kilobytes}k', 'none', '/dev/shm']]))])


def crops(size: int) -> list[str]:
    return [f'data.train.pipeline.3.crop_size=({size},{size})',
            f'data.train.pipeline.7.size=({size},{size})',
            f'model.test_cfg.crop_size=({size},{size})']


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS])
def test_a_loader_worker_dies(machine, config, tmp_path, number):
    """The run ends in one line that says so; it does not wait for the worker."""
    zygote = machine._zygotes[0]
    [process], read = start_guarded(zygote, tmp_path, [
        'train.py', config, '--work-dir', tmp_path / 'run', '--cfg-options',
        'runner.max_iters=3000', 'data.workers_per_gpu=2'])
    wait_for(tmp_path / 'log.txt', 'Iter [2/')
    workers = [int(word) for task in Path(f'/proc/{process}/task').iterdir()
               for word in (task / 'children').read_text().split()]
    os.kill(workers[0], number)
    outcome = read(zygote.wait(process))
    assert_one_line(outcome)
    assert 'worker' in outcome.last


@pytest.mark.parametrize(('number', 'code'), [
    (None, 1), (signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 75),
    (signal.SIGKILL, -signal.SIGKILL)])
def test_a_loader_worker_is_stopped(machine, config, tmp_path, number, code):
    """Whatever ends the run, it does so within the limit, and leaves no process."""
    zygote = machine._zygotes[0]
    [process], read = start_guarded(zygote, tmp_path, [
        'train.py', config, '--work-dir', tmp_path / 'run', '--cfg-options',
        'runner.max_iters=3000', 'data.workers_per_gpu=2', 'data.timeout=3'])
    wait_for(tmp_path / 'log.txt', 'Iter [2/')
    os.kill(members(process)[1], signal.SIGSTOP)
    began = time.monotonic()
    if number is not None:
        os.kill(process, number)
    outcome = read(zygote.wait(process))
    assert time.monotonic() - began < 40
    assert_none_left(process)
    if outcome.code == 1 and code >= 0:  # no batch was there any more
        assert_one_line(outcome)
        assert 'loader worker' in outcome.last and 'stopped' in outcome.last
    else:
        assert outcome.code == code, outcome.text[-3000:]


@pytest.mark.parametrize('command', ['test.py', 'cache.py build'])
def test_a_disk_that_hangs(machine, runs, tmp_path, command):
    """The line names the worker and the image."""
    zygote, data = machine._zygotes[0], draw_data(tmp_path / 'data', train=4, val=4)
    config = write_config(tmp_path / 'config.py', data, extra=SMALL_LINEAR + f"""
custom_imports = dict(imports=['mmseg_custom', 'helpers.hanging_step'])
train_pipeline.insert(2, dict(type='HangingStep'))
test_pipeline.insert(1, dict(type='HangingStep'))
feature_cache = dict(dir='{tmp_path}/cache', views=1, seed=5)
""")
    tool, *words = command.split()
    [process], read = start_guarded(zygote, tmp_path, [
        tool, *words, config, *(['none', '--eval', 'mIoU'] if tool == 'test.py' else []),
        '--work-dir', tmp_path / 'run', '--cfg-options', 'data.workers_per_gpu=1',
        'data.timeout=3'])
    outcome = read(zygote.wait(process))
    assert_one_line(outcome)
    assert '00000003.jpg' in outcome.last or tool == 'cache.py', outcome.last
    assert_none_left(process)


def members(session: int) -> list[int]:
    """The processes of a session that have not ended, the oldest first."""
    found = []
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            state, *words = path.read_text().rpartition(')')[2].split()
        except OSError:
            continue  # it has just ended
        if int(words[2]) == session and state != 'Z':
            found.append(int(path.parent.name))
    return sorted(found)


def assert_none_left(session: int) -> None:
    end = time.monotonic() + 10
    while members(session):
        FIGURES.wrong['processes left'] += time.monotonic() > end
        assert time.monotonic() < end, members(session)
        time.sleep(0.05)


def assert_one_line(outcome: Outcome) -> None:
    FIGURES.wrong['hang'] += outcome.code == -signal.SIGALRM
    FIGURES.wrong['traceback'] += 'Traceback' in outcome.text
    assert outcome.code == 1 and 'Traceback' not in outcome.text, outcome.text[-3000:]
    assert outcome.last.startswith('error'), outcome.last


@pytest.mark.parametrize('ranks, engine', ENGINES[1:])
def test_a_stopped_rank(machine, config, tmp_path, ranks, engine):
    """The others wait for it no longer than dist_params.timeout_minutes, and say what they did."""
    zygote = machine._zygotes[0]
    processes, read = start_guarded(zygote, tmp_path, [
        'train.py', config, '--work-dir', tmp_path / 'run', '--launcher', 'pytorch',
        *spread(ranks, engine), '--cfg-options', 'runner.max_iters=3000',
        'dist_params.timeout_minutes=0.1'], ranks=ranks)
    wait_for(tmp_path / 'log.txt', 'Iter [2/')
    os.kill(processes[1], signal.SIGSTOP)
    began = time.monotonic()
    outcome = read(zygote.wait(processes[0]))
    seconds = time.monotonic() - began
    os.kill(processes[1], signal.SIGKILL)
    zygote.wait(processes[1])
    assert_one_line(outcome)
    assert seconds < 60
    assert 'rank 0' in outcome.last and 'has not answered for 0.1 minutes' in outcome.last


@pytest.mark.parametrize('ranks, engine', ENGINES)
def test_two_runs_in_one_folder(zygote, config, runs, tmp_path, ranks, engine):
    """The second is refused, and the first does not notice."""
    log, run = tmp_path / 'log.txt', tmp_path / 'run'
    common = ['--work-dir', run, '--seed', 5, *spread(ranks, engine)]
    processes = zygote.start_training(log, config, *common, ranks=ranks)
    wait_for(log, 'Iter [1/8]')
    text = zygote.train(config, *common, '--auto-resume', code=1)
    assert 'is in use by process' in text.strip().splitlines()[-1] and 'Traceback' not in text
    assert [zygote.wait(process) for process in processes] == [0] * ranks
    assert_same_end(run, runs / engine)


@pytest.mark.parametrize('name', ['convert', 'merge', 'prepare', 'cache', 'report'])
def test_a_tool_twice_at_once(machine, runs, config, tmp_path, name):
    """Both end well, or one is refused in a line; what they leave is whole."""
    command, target = tools(runs, config)[name]
    (tmp_path / 'to').mkdir()
    zygote, started = machine._zygotes[0], []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        started.append(start_guarded(zygote, folder, command(tmp_path / 'to')))
    outcomes = [read(zygote.wait(process)) for [process], read in started]
    assert 0 in [outcome.code for outcome in outcomes]
    for outcome in outcomes:
        assert 'Traceback' not in outcome.text, outcome.text[-3000:]
        assert outcome.code == 0 or outcome.last.startswith('error'), outcome.last
    if target:
        assert (tmp_path / 'to' / target).exists()
    assert not list((tmp_path / 'to').rglob('*.part'))
