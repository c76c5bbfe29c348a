import pytest
from mmcv import Config

from mmseg_custom.engine.config import load_config, resolve_config
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.errors import InputError


@pytest.fixture
def config(tmp_path):
    """A function that makes a config of some keys, in a file named some.py."""
    def make(**keys) -> Config:
        data = dict(test=dict(type='ADE20KDataset', pipeline=[]))
        cfg = Config(dict(model=dict(type='InternViTSegmentor'), data=data, **keys))
        cfg.dump(str(tmp_path / 'some.py'))
        return load_config(str(tmp_path / 'some.py'))
    return make


def test_options_take_precedence_and_the_config_stays(config):
    cfg = config(load_from='a.pth', total_batch=8, engine=dict(type='ddp', prefetch=2))
    before = cfg.pretty_text
    resolved, notes = resolve_config(cfg, RunOptions(engine='fsdp2', total_batch=16))
    assert (resolved.load_from, resolved.total_batch, resolved.resume_from) == ('a.pth', 16, None)
    assert resolved.engine == dict(type='fsdp2', prefetch=2)
    assert resolved.work_dir == './work_dirs/some' and notes == []
    assert resolve_config(cfg, RunOptions(load_from=''))[0].load_from == 'a.pth'
    assert cfg.pretty_text == before


def test_work_dir_of_training_and_of_a_test(config):
    cfg = config(work_dir='here')
    assert resolve_config(cfg, RunOptions())[0].work_dir == 'here'
    assert resolve_config(cfg, RunOptions(work_dir='there'))[0].work_dir == 'there'
    assert resolve_config(cfg, RunOptions(checkpoint='x.pth'))[0].work_dir == './work_dirs/some'


def test_configs_of_the_original_are_translated(config):
    cfg, notes = resolve_config(config(
        total_iters=7, deepspeed=True, checkpoint_config=dict(interval=1, deepspeed=True),
        evaluation=dict(save_best='auto')), RunOptions())
    assert cfg.runner == dict(type='IterBasedRunner', max_iters=7)
    assert cfg.checkpoint_config == dict(interval=1) and cfg.evaluation.save_best == 'mIoU'
    assert len(notes) == 2 and 'deepspeed' in notes[0] and 'mIoU' in notes[1]


def test_augmentation_needs_its_step(config):
    with pytest.raises(InputError, match='--aug-test: data.test.pipeline has no MultiScaleFlipAug'):
        resolve_config(config(), RunOptions(aug_test=True))


def test_lengths_that_are_written_as_8e4(config):
    cfg = config(runner=dict(type='IterBasedRunner', max_iters=8e4))
    length = resolve_config(cfg, RunOptions())[0].runner.max_iters
    assert length == 80000 and isinstance(length, int)
