"""Checkpoints that are written while the training goes on, on a disk that is slow or full."""
import os
import signal
from pathlib import Path

import pytest
import torch
from helpers.data import draw_data, write_config
from helpers.runs import SMALL, assert_same_end, sharded_state, spread, wait_for
from torch.utils._pytree import tree_flatten

EXTRA = SMALL + """
checkpoint_config['background'] = True
custom_imports = dict(imports=['mmseg_custom', 'helpers.slow_writes'])
custom_hooks = [dict(type='EMAHook'), dict(type='SlowWrites', seconds=.2)]
"""
ENGINES = [(1, 'single'), pytest.param(2, 'ddp', marks=pytest.mark.slow),
           pytest.param(2, 'fsdp2', marks=pytest.mark.slow)]


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('background')
    return write_config(folder / 'config.py', draw_data(folder, train=5, val=2),
                        'head_tuning_tiny', EXTRA)


@pytest.fixture(scope='module')
def whole(zygote, config, tmp_path_factory):
    """Runs that write at once, by their engine, each made once."""
    folder, done = tmp_path_factory.mktemp('whole'), {}

    def get(ranks: int, engine: str) -> Path:
        if engine not in done:
            done[engine] = folder / engine
            text = zygote.train(config, '--work-dir', done[engine], '--seed', 5,
                                *spread(ranks, engine), '--cfg-options',
                                'checkpoint_config.background=False', ranks=ranks)
            assert 'written in' not in text and 'training waited' in text
        return done[engine]
    return get


def state_of(path: Path) -> dict:
    if path.suffix == '.dcp':
        return sharded_state(path)
    content = torch.load(path, weights_only=True)
    return {**content['state_dict'], **content['optimizer']}


@pytest.mark.slow
@pytest.mark.parametrize('ranks, engine', ENGINES)
def test_what_is_written_is_that_of_the_iteration(zygote, config, whole, tmp_path, ranks, engine):
    """Averages, weights and moments, while the training changes its own."""
    text = zygote.train(config, '--work-dir', tmp_path / 'run', '--seed', 5,
                        *spread(ranks, engine), ranks=ranks)
    assert text.index('Iter [3/8]') < text.index('iter_2.') and 'written in' in text
    assert 'Traceback' not in text
    assert_same_end(tmp_path / 'run', whole(ranks, engine))
    names = {path.name for path in (tmp_path / 'run').iterdir() if path.suffix in ('.pth', '.dcp')}
    assert names == {path.name for path in whole(ranks, engine).iterdir()
                     if path.suffix in ('.pth', '.dcp')}
    for name in names - {'latest.pth'}:
        (found, form), (expected, expected_form) = (
            tree_flatten(state_of(folder / name))
            for folder in (tmp_path / 'run', whole(ranks, engine)))
        assert form == expected_form
        assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
                   for a, b in zip(found, expected))


@pytest.mark.slow
@pytest.mark.parametrize('ranks, engine', [(1, 'single'), (2, 'fsdp2')])
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGKILL])
def test_stopped_while_one_is_written(zygote, config, whole, tmp_path, ranks, engine, number):
    """A signal waits for it; a kill leaves the one before, and what the next start sweeps."""
    run, log = tmp_path / 'run', tmp_path / 'log.txt'
    options = ['--work-dir', run, '--auto-resume', '--seed', 5, *spread(ranks, engine)]
    ending = 'dcp' if engine == 'fsdp2' else 'pth'
    processes = zygote.start_training(log, config, *options, '--cfg-options',
                                      'custom_hooks.1.seconds=8', 'custom_hooks.1.slow=iter_6',
                                      ranks=ranks)
    wait_for(log, 'Iter [7/8]')
    assert (run / f'iter_6.{ending}.part').exists() and (run / f'iter_4.{ending}').exists()
    for process in processes:
        os.kill(process, number)
    codes = {zygote.wait(process) for process in processes}
    text = log.read_text()
    if number == signal.SIGTERM:
        assert codes == {75} and f'until {run}/iter_6.{ending} was written' in text
        assert not list(run.glob('*.part')) and 'Traceback' not in text
        last = (run / 'latest.pth').resolve()
        assert last.name in (f'iter_7.{ending}', f'iter_8.{ending}')
    else:
        assert codes == {-signal.SIGKILL}
        assert (run / 'latest.pth').resolve() == run / f'iter_4.{ending}'
    text = zygote.train(config, *options, ranks=ranks)
    assert (number == signal.SIGTERM) == ('left by a run that was killed' not in text)
    assert_same_end(run, whole(ranks, engine), killed=True)


@pytest.mark.slow
@pytest.mark.parametrize('ranks, engine', [(1, 'single'), (2, 'fsdp2')])
def test_a_disk_that_is_full(zygote, config, whole, tmp_path, ranks, engine):
    """The training goes on without those checkpoints, and removes no other."""
    run = tmp_path / 'run'
    text = zygote.train(config, '--work-dir', run, '--seed', 5, *spread(ranks, engine),
                        '--cfg-options', 'checkpoint_config.max_keep_ckpts=1',
                        'custom_hooks.1.full=iter_4', ranks=ranks)
    assert 'training continues without this checkpoint' in text and 'No space left' in text
    assert 'the previous best checkpoint is kept' in text and 'Traceback' not in text
    assert not list(run.glob('*iter_4*')) and len(list(run.glob('iter_*'))) == 1
    assert text.index('iter_4') < text.index('saved', text.index('continues without'))
    best = list(run.glob('best_*'))
    assert [path.stem for path in best] == ['best_mIoU_iter_8']
