"""A run is prepared once and read afterwards."""
import dataclasses

import pytest
import torch
from helpers.data import prepare, write_config
from helpers.runs import SMALL

from mmseg_custom.engine.preemption import Preemption
from mmseg_custom.engine.train import train
from mmseg_custom.errors import InputError


def nested(kind: str, root) -> dict:
    """Returns ``data.train`` of two copies of the data, or of one with two folders of images."""
    one = dict(type='ADE20KDataset', data_root=str(root), img_dir='images/training',
               ann_dir='annotations/training', pipeline='PIPELINE')
    return {
        'list': [one, one],
        'RepeatDataset': dict(_delete_=True, type='RepeatDataset', times=2, dataset=one),
        'folders': dict(one, img_dir=[one['img_dir']] * 2, ann_dir=[one['ann_dir']] * 2),
    }[kind]


@pytest.fixture
def config(shared_data, tmp_path):
    return write_config(tmp_path / 'config.py', shared_data, 'head_tuning_tiny', SMALL)


def test_a_run_is_immutable_and_its_config_stays(config, tmp_path, monkeypatch):
    monkeypatch.setattr(Preemption, 'listen', lambda self: None)
    run = prepare(config, settings={'runner.max_iters': 1, 'evaluation.interval': 1},
                  work_dir=str(tmp_path / 'work'), seed=1)
    before = run.cfg.pretty_text
    train(run)
    assert run.cfg.pretty_text == before
    assert (tmp_path / 'work/iter_1.pth').exists() or (tmp_path / 'work/best.json').exists()
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.seed = 2


def test_a_resume_opens_the_checkpoint_once(config, tmp_path, monkeypatch):
    monkeypatch.setattr(Preemption, 'listen', lambda self: None)
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


@pytest.mark.parametrize('kind', ['list', 'RepeatDataset', 'folders'])
def test_nested_data(config, shared_data, tmp_path, kind):
    pipeline = prepare(config, ['train'], work_dir=str(tmp_path)).cfg.data.train.pipeline
    config.write_text(f'{config.read_text()}\ndata["train"] = {nested(kind, shared_data)}\n'
                      .replace("'PIPELINE'", f'{pipeline}'))
    run = prepare(config, ['train'], work_dir=str(tmp_path))
    images = 6 if kind == 'RepeatDataset' else 12
    assert len(run.data['train']) == 12
    assert run.identity['list of images'].startswith(f'{images} images')
    assert run.data['train'][7]['img'].data.shape == (3, 56, 56)
    assert any('pipeline' in name for name in run.identity)
