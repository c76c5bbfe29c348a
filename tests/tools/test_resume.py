"""A run that was interrupted ends as the one that was not: bit for bit on the CPU."""
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.commands import ROOT, free_port
from helpers.runs import assert_same_end, spread, wait_for, without_the_end, write_small_config

from mmseg_custom.engine.lock import lock_work_dir
from mmseg_custom.processes import state_of


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('resume')
    return write_small_config(folder)


@pytest.fixture(scope='module')
def whole(zygote, config, tmp_path_factory):
    """Uninterrupted runs by their number of ranks, each made once."""
    folder, done = tmp_path_factory.mktemp('whole'), {}

    def get(ranks: int, engine: str = 'ddp') -> Path:
        name = f'{engine}{ranks}'
        if name not in done:
            done[name] = folder / name
            zygote.train(config, '--work-dir', done[name], '--seed', 5,
                         *spread(ranks, engine), ranks=ranks)
        return done[name]
    return get


@pytest.mark.parametrize('ranks, engine', [
    (1, 'single'), pytest.param(2, 'ddp', marks=pytest.mark.slow),
    pytest.param(2, 'fsdp2', marks=pytest.mark.slow)])
def test_killed_in_an_evaluation(zygote, config, whole, tmp_path, ranks, engine):
    """The evaluation of iteration 4 is made again, and finds the same best score."""
    work_dir = without_the_end(whole(ranks, engine), tmp_path / 'run')
    text = zygote.train(config, '--work-dir', work_dir, '--auto-resume',
                        *spread(ranks, engine), ranks=ranks)
    assert 'resumed after iteration 4' in text and 'seed: 5' in text
    assert 'evaluation of iteration 4 was not finished' in text
    assert_same_end(work_dir, whole(ranks, engine))


@pytest.mark.parametrize('number, engine', [
    (signal.SIGINT, 'ddp'), pytest.param(signal.SIGUSR1, 'fsdp2', marks=pytest.mark.slow)])
def test_preempted(zygote, config, whole, tmp_path, number, engine):
    """Stopped after whatever iteration it is in; a rank of two and its workers get the signal."""
    code, name = (130, 'Ctrl-C') if number == signal.SIGINT else (75, number.name)
    work_dir = tmp_path / 'run'
    arguments = [config, '--work-dir', work_dir, '--auto-resume', *spread(2, engine)]
    processes = zygote.start_training(tmp_path / 'first.txt', *arguments, '--seed', 5, ranks=2)
    wait_for(tmp_path / 'first.txt', 'Iter [2/8]')
    os.killpg(processes[1], number)
    assert [zygote.wait(process) for process in processes] == [code] * 2, (
        tmp_path / 'first.txt').read_text()[-3000:]
    assert f'stopped by {name} after iteration' in (tmp_path / 'first.txt').read_text()
    assert not list(work_dir.glob('iter_8.*'))
    zygote.train(*arguments, ranks=2)
    assert_same_end(work_dir, whole(2, engine))
    assert len(list(work_dir.glob('iter_*'))) == 3  # with max_keep_ckpts=3, that one included


@pytest.mark.parametrize('options, message', [
    (['model.backbone.drop_path_rate=0.1', 'data.samples_per_gpu=4'],
     'model.backbone.drop_path_rate was 0.3 and is 0.1 here'),
    (['optimizer.lr=1.0', 'data.samples_per_gpu=4'], 'optimizer.lr was 0.001 and is 1.0 here'),
    (['data.samples_per_gpu=3'], 'images a step was 4 and is 3 here'),
    (['data.train.max_image_num=4', 'data.samples_per_gpu=4'],
     'list of images was 5 images, SHA-256 '),
])
def test_another_run_is_refused(zygote, config, whole, tmp_path, options, message):
    run = whole(1, 'single')
    before = sorted(run.iterdir())
    text = zygote.train(config, '--work-dir', tmp_path / 'run',
                        '--resume-from', run / 'iter_4.pth', '--cfg-options', *options, code=1)
    last = text.strip().splitlines()[-1]
    assert last.startswith('error: ') and message in last and 'iter_4.pth' in last
    assert 'Traceback' not in text and sorted(run.iterdir()) == before


def test_one_run_a_work_dir(zygote, config, tmp_path):
    """The others here show that the lock goes when its holder does."""
    (tmp_path / 'run').mkdir()
    lock_work_dir(tmp_path / 'run')
    text = zygote.train(config, '--work-dir', tmp_path / 'run', code=1)
    assert f'is in use by process {os.getpid()} on ' in text.strip().splitlines()[-1]
    assert {path.name for path in (tmp_path / 'run').iterdir()} == {'.lock'}


@pytest.mark.slow
def test_launcher(config, whole, tmp_path):
    """A dead rank and a restart, then preemption, then the end on two nodes."""
    work_dir, log = tmp_path / 'run', tmp_path / 'log.txt'
    command = [config, '--work-dir', work_dir, '--seed', 5]
    with dist_train(log, *command, *spread(2), processes=2, RESTARTS='1') as launcher:
        wait_for(work_dir / 'iter_2.pth')
        os.kill(children(launcher.pid)[1], signal.SIGKILL)
        wait_for(log, 'resumed after iteration')
        launcher.send_signal(signal.SIGUSR1)
        assert launcher.wait(60) == 75, log.read_text()[-3000:]
    text = log.read_text()
    assert 'the process of rank 1 was killed by signal 9' in text
    assert text.strip().splitlines()[-1] == (
        'the run was stopped by a signal and can be resumed with --auto-resume')

    port = free_port()
    nodes = [dist_train(tmp_path / f'node{i}.txt', *command, '--auto-resume', *spread(2),
                        processes=1, NNODES='2', NODE_RANK=str(i), PORT=port) for i in (0, 1)]
    for i, node in enumerate(nodes):
        assert node.wait(120) == 0, (tmp_path / f'node{i}.txt').read_text()[-3000:]
    assert_same_end(work_dir, whole(2), killed=True)


@pytest.mark.slow
def test_a_launcher_that_is_killed_and_one_that_is_interrupted_twice(config, tmp_path):
    """Its ranks save and end; a rank that is stopped is killed. Nothing is left in either case."""
    options = ['--cfg-options', 'runner.max_iters=3000', 'checkpoint_config.interval=3000']
    for name in ('killed', 'interrupted'):
        log, work_dir = tmp_path / f'{name}.txt', tmp_path / name
        launcher = dist_train(log, config, '--work-dir', work_dir, *spread(2), *options,
                              processes=2)
        wait_for(log, 'Iter [2/')
        ranks = children(launcher.pid)
        if name == 'killed':
            launcher.kill()
        else:
            os.kill(ranks[1], signal.SIGSTOP)
            for _ in range(2):
                launcher.send_signal(signal.SIGINT)
                time.sleep(1.5)
        assert launcher.wait(30) == (-signal.SIGKILL if name == 'killed' else 130)
        end = time.monotonic() + 60
        while any(state_of(rank) != 'ended' for rank in ranks):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert bool(list(work_dir.glob('iter_*.pth'))) == (name == 'killed')


def dist_train(log: Path, *arguments: object, processes: int, **env: str) -> subprocess.Popen:
    config, *options = [str(word) for word in arguments]
    with log.open('w') as file:
        return subprocess.Popen(
            ['sh', str(ROOT / 'dist_train.sh'), config, str(processes), *options],
            stdout=file, stderr=file, env={'PORT': free_port(), **os.environ, **env,
                                           'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1'})


def children(process: int) -> list[int]:
    """Those of a launcher, in the order of their ranks."""
    return [int(word) for word in
            Path(f'/proc/{process}/task/{process}/children').read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize('engine', ['ddp', 'fsdp2'])
def test_killed_twenty_times(zygote, config, whole, tmp_path, engine):
    """A random rank dies at a random moment, start-up, saving and evaluation included."""
    rng, work_dir, kills, seconds = random.Random(0), tmp_path / 'run', 0, 6.0
    common = ['--work-dir', work_dir, '--auto-resume', '--seed', 5, *spread(2, engine)]
    while kills < 20:
        began = time.monotonic()
        log = tmp_path / f'{kills}.txt'
        processes = zygote.start_training(log, config, *common, ranks=2)
        victim, other = rng.sample(processes, 2)
        if kills % 2:  # start-up takes most of so short a run: every other one dies after it
            wait_for(log, 'Checkpoints will be saved')
        time.sleep(rng.uniform(0, seconds / (1 + kills % 2)))
        os.kill(victim, signal.SIGKILL)
        launcher = threading.Timer(10, os.kill, (other, signal.SIGKILL))  # in place of torchrun
        launcher.start()
        codes = [zygote.wait(process) for process in (victim, other)]
        launcher.cancel()
        if codes == [0, 0]:  # it was faster, and starts anew
            seconds = min(seconds, time.monotonic() - began)
            shutil.rmtree(work_dir)
            continue
        assert codes[0] == -signal.SIGKILL, log.read_text()[-3000:]
        assert codes[1] != 0 or list(work_dir.glob('iter_8.*'))  # it had nothing left to do
        kills += 1
    zygote.train(config, *common, ranks=2)
    assert_same_end(work_dir, whole(2, engine), killed=True)
