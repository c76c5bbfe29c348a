"""Runs of adapters and last blocks that are resumed end as if they had not been interrupted."""
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.runs import (
    PARTLY,
    assert_same_end,
    spread,
    wait_for,
    without_the_end,
    write_backbone,
    write_small_config,
)


@pytest.fixture(scope='module')
def config_of(tmp_path_factory) -> Callable[[str], Path]:
    """Config of a kind of tuning; two of them are on weights of a file."""
    def config_of(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        extra = PARTLY[kind]
        if kind in ('lora', 'last_blocks'):  # checkpoints hold what is trained alone
            extra += f"model['backbone'].update(pretrained='{write_backbone(folder)}')\n"
        return write_small_config(folder, extra)
    return config_of


@pytest.fixture(scope='module')
def whole(zygote, config_of, tmp_path_factory) -> Callable[..., tuple[Path, Path]]:
    """Configs and uninterrupted runs of a kind and engine, each made once."""
    zygote.import_once('peft')
    done: dict[tuple, tuple[Path, Path]] = {}

    def whole(kind: str, ranks: int, engine: str) -> tuple[Path, Path]:
        if (kind, engine) not in done:
            config, work_dir = config_of(kind), tmp_path_factory.mktemp('whole') / 'run'
            zygote.train(config, '--work-dir', work_dir, '--seed', 5, *spread(ranks, engine),
                         ranks=ranks)
            done[kind, engine] = config, work_dir
        return done[kind, engine]
    return whole


@pytest.mark.parametrize('kind', ['lora', pytest.param('norms', marks=pytest.mark.slow)])
def test_in_this_process(run_tool, config_of, tmp_path, kind):
    def train(folder: str, *arguments: object) -> str:
        code, _, text = run_tool('train.py', config, '--work-dir', tmp_path / folder, *spread(1),
                                 *arguments)
        assert code == 0, text[-3000:]
        return text

    config = config_of(kind)
    train('whole', '--seed', 5)
    without_the_end(tmp_path / 'whole', tmp_path / 'run')
    assert 'resumed after iteration 4' in train('run', '--auto-resume')
    assert_same_end(tmp_path / 'run', tmp_path / 'whole')
    saved = torch.load(tmp_path / 'run/iter_8.pth', weights_only=True)
    whole = 'backbone.blocks.0.attn.qkv.weight' in saved['state_dict']
    assert whole == ('backbone' not in saved['meta']) == (kind == 'norms')


@pytest.mark.slow
@pytest.mark.parametrize('ranks, engine', [(1, 'single'), (2, 'ddp'), (2, 'fsdp2')])
@pytest.mark.parametrize('kind', PARTLY)
def test_killed_in_an_evaluation(zygote, whole, tmp_path, kind, ranks, engine):
    config, run = whole(kind, ranks, engine)
    work_dir = without_the_end(run, tmp_path / 'run')
    text = zygote.train(config, '--work-dir', work_dir, '--auto-resume', *spread(ranks, engine),
                        ranks=ranks)
    assert 'resumed after iteration 4' in text
    assert_same_end(work_dir, run)


@pytest.mark.slow
@pytest.mark.parametrize('engine', ['ddp', 'fsdp2'])
@pytest.mark.parametrize('kind', ['lora', 'last_blocks'])
def test_stopped_by_a_signal(zygote, whole, tmp_path, kind, engine):
    config, run = whole(kind, 2, engine)
    arguments = [config, '--work-dir', tmp_path / 'run', '--auto-resume', *spread(2, engine)]
    log = tmp_path / 'first.txt'
    processes = zygote.start_training(log, *arguments, '--seed', 5, ranks=2)
    wait_for(log, 'Iter [2/8]')
    os.killpg(processes[1], signal.SIGTERM)
    assert [zygote.wait(process) for process in processes] == [75] * 2, log.read_text()[-3000:]
    assert not list((tmp_path / 'run').glob('iter_8.*'))
    zygote.train(*arguments, ranks=2)
    assert_same_end(tmp_path / 'run', run)
