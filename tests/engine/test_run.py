"""A run is prepared once and read afterwards."""
import dataclasses
import json

import pytest
import torch
from helpers.data import prepare, write_config
from helpers.nesting import NESTINGS, WRAPPERS
from helpers.runs import SMALL
from mmcv import Config
from mmcv.runner import RUNNERS, IterBasedRunner

from mmseg_custom.checkpoint import open_checkpoint
from mmseg_custom.engine.config import load_config
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.preemption import Preemption
from mmseg_custom.engine.run import prepare_run
from mmseg_custom.engine.train import train
from mmseg_custom.errors import InputError


@pytest.fixture(autouse=True)
def _without_signals(monkeypatch):
    monkeypatch.setattr(Preemption, 'listen', lambda self: None)


@pytest.fixture
def config(shared_data, tmp_path):
    return write_config(tmp_path / 'config.py', shared_data, 'head_tuning_tiny', SMALL)


def test_a_run_is_immutable_and_its_config_stays(config, tmp_path):
    run = prepare(config, settings={'runner.max_iters': 1, 'evaluation.interval': 1},
                  work_dir=str(tmp_path / 'work'), seed=1)
    before = run.cfg.pretty_text
    train(run)
    assert run.cfg.pretty_text == before
    assert (tmp_path / 'work/iter_1.pth').exists() or (tmp_path / 'work/best.json').exists()
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.seed = 2


def test_a_resume_opens_the_checkpoint_once(config, tmp_path, monkeypatch):
    work_dir, opened, load = str(tmp_path / 'work'), [], torch.load

    def counted(path, *args, **kwargs):
        opened.append(str(path))
        return load(path, *args, **kwargs)

    settings = {'runner.max_iters': 2, 'checkpoint_config.interval': 2}
    train(prepare(config, settings=settings, work_dir=work_dir, seed=1, no_validate=True))
    monkeypatch.setattr(torch, 'load', counted)
    run = prepare(config, settings={**settings, 'runner.max_iters': 3}, work_dir=work_dir,
                  auto_resume=True, no_validate=True)
    assert run.resumed and run.seed == 1
    train(run)
    assert opened == [f'{work_dir}/iter_2.pth']
    with pytest.raises(InputError, match='belongs to another run: seed was 1 and is 2 here'):
        prepare(config, settings=settings, work_dir=work_dir, auto_resume=True, seed=2)


def test_a_gpu_without_a_compiler_is_refused_before_weights_are_read(config, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.delenv('CC', raising=False)
    cfg = load_config(str(config), {'optimizer.type': 'LowMemoryAdamW'})
    cfg.work_dir = str(tmp_path)
    prepare_run(cfg, RunOptions(device='cpu'))
    with pytest.raises(InputError, match='optimizer.type=.* no C compiler'):
        prepare_run(cfg, RunOptions(device='cuda'))


@pytest.mark.parametrize('kind', WRAPPERS)
def test_nested_data_are_identified_and_trained_on(config, tmp_path, kind):
    nesting = NESTINGS[kind]
    cfg = load_config(str(config), {'runner.max_iters': 1, 'checkpoint_config.interval': 1})
    cfg.data.train = nesting.of(dict(cfg.data.train))
    run = prepare(cfg, ['train'], work_dir=str(tmp_path / 'work'), seed=1)
    assert len(run.data['train']) == nesting.length
    assert run.identity['list of images'].startswith(f'{sum(map(len, nesting.names))} images')
    assert any('pipeline' in name for name in run.identity)
    train(run)
    assert open_checkpoint(str(tmp_path / 'work/iter_1.pth')).meta['run'] == run.identity


def test_a_test_reads_no_setting_of_the_training(config, tmp_path):
    settings = {'total_batch': 7, 'accumulation': 0, 'engine.type': 'unknown',
                'data.test.test_mode': False}
    run = prepare(config, ['test'], settings, checkpoint='none', work_dir=str(tmp_path / 'work'))
    assert len(run.data['test']) == 3 and run.data['test'].test_mode
    with pytest.raises(InputError):
        prepare(config, ['train'], settings, work_dir=str(tmp_path / 'work'))


def test_what_owns_no_work_dir_is_not_resumed_from_it(config, tmp_path):
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    (work_dir / 'iter_9.pth.part').touch()  # a training is saving it
    settings = {'resume_from': 'no/such/file.pth', 'sweep.lr': [1e-3, 1e-4]}
    given = dict(work_dir=str(work_dir), owns_work_dir=False)
    assert prepare(config, ['train'], settings, **given).checkpoint is None
    with pytest.raises(InputError, match='no/such/weights.pth'):
        prepare(config, ['train'], settings, load_from='no/such/weights.pth', **given)
    assert (work_dir / 'iter_9.pth.part').exists()
    run = prepare(config, ['train'], {'sweep.lr': [1e-3, 1e-4]}, work_dir=str(work_dir))
    assert run.checkpoint is None and not run.resumed


def test_the_record_has_the_seed(config, tmp_path):
    run = prepare(config, ['train'], work_dir=str(tmp_path / 'work'), seed=5)
    assert Config.fromstring(run.meta['config'], '.py').seed == run.record.seed == 5
    assert 'seed' not in run.cfg


def test_the_record_is_written_in_the_format_of_the_config(config, tmp_path):
    run = prepare(config, ['train'], work_dir=str(tmp_path / 'work'), seed=5)
    assert run.dump() == run.record.dump() == run.meta['config']
    of_json = Config(run.cfg._cfg_dict, cfg_text='{}', filename='some.json')
    run = dataclasses.replace(run, cfg=of_json)
    assert json.loads(run.dump())['seed'] == 5
    assert Config.fromstring(run.meta['config'], '.py').seed == 5


def test_other_runners_do_not_accumulate(config, tmp_path):
    RUNNERS.register_module('OtherRunner', force=True, module=IterBasedRunner)
    run = prepare(config, settings={'accumulation': 2, 'runner.type': 'OtherRunner'},
                  work_dir=str(tmp_path / 'work'), no_validate=True)
    with pytest.raises(InputError, match="'OtherRunner' does not accumulate 2 batches"):
        train(run)
