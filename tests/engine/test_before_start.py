"""What a config alone tells is refused before anything is started, read or built."""
import copy
from pathlib import Path

import pytest
from helpers.data import SMALL_LINEAR, write_config
from mmcv import Config
from mmseg.models import HEADS
from torch import nn

from mmseg_custom.engine.before_start import check_before_start, classes_by_config
from mmseg_custom.engine.config import load_config, resolve_config
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.errors import InputError

TINY = ('model = dict(backbone=dict(embed_dim=32, depth=4, num_heads=2, out_indices=[0, 1, 2, 3]), '
        'decode_head=dict(in_channels=[32] * 4), auxiliary_head=dict(in_channels=32))\n')


ADAPTER = ('model = dict(backbone=dict(embed_dim=32, num_heads=2, deform_num_heads=2), '
           'decode_head=dict(in_channels=[32] * 4), auxiliary_head=dict(in_channels=32))\n')


@pytest.fixture(scope='module')
def loaded(tmp_path_factory):
    """A config whose data is nowhere."""
    return load_config(str(write_config(tmp_path_factory.mktemp('config') / 'some.py',
                                        Path('nowhere'), 'head_tuning_tiny', TINY)))


@pytest.fixture(scope='module')
def adapter(tmp_path_factory):
    """The same with a ViT-Adapter."""
    return load_config(str(write_config(tmp_path_factory.mktemp('adapter') / 'some.py',
                                        Path('nowhere'), 'vit_adapter_tiny', ADAPTER)))


def check(loaded: Config, changes: dict, splits: tuple[str, ...] = ('train', 'val'),
          **options: object) -> None:
    cfg = copy.deepcopy(loaded)
    cfg.merge_from_dict(changes)
    given = RunOptions(**options)
    check_before_start(resolve_config(cfg, given)[0], given, splits)


def test_what_the_others_change_is_not_refused(loaded, adapter):
    check(loaded, {})
    check(adapter, {})


@pytest.mark.parametrize(('key', 'value', 'message'), [
    ('optimizer.betas', [0.9, 1.0], 'optimizer does not work: .* Invalid beta parameter'),
    ('lr_config', dict(policy='CosineAnnealing'), 'lr_config does not work: .*min_lr_ratio'),
    ('runner.max_epochs', 3, 'max_iters and max_epochs'),
    ('workflow', [('trian', 1)], r"expected \[\('train', N\)\]"),
    ('engine', dict(type='fdsp2'), "engine.type='fdsp2': expected one of"),
    ('sweep', dict(head=['x']), "sweep.head: 'x'"),
    ('sweep', dict(train_last=[1, 99]), 'train_last=99: expected a number of blocks from 1 to'),
    ('feature_cache', dict(direc='x'), "did you mean 'dir'"),
    ('evaluation.metric', 'mIou', "expected some of .*did you mean 'mIoU'"),
    ('evaluation.save_best', 'acc', "did you mean 'aAcc'"),
    ('load_from', 'none.pth', "load_from='none.pth' does not exist"),
    ('load_from', 'https://x/a.pth', 'is an address: download the file first'),
    ('model.backbone.pretrained', 'none.pth', 'pretrained file none.pth does not exist'),
    ('model.backbone.adapt', dict(type='lora', pretrained='none'),
     "adapt.pretrained='none' does not exist: expected a folder of peft's adapters"),
    ('model.backbone.adapt', dict(type='lora', pretrained=__file__),
     "adapt.pretrained='.*.py' is no folder: expected a folder of peft's adapters"),
    ('model.backbone.adapt', dict(type='lora', pretrained=5), 'pretrained=5 does not exist'),
    ('model.backbone.num_heads', 3, 'num_heads 3: expected a divisor'),
    ('model.decode_head.norm_cfg', dict(type='GN'), 'model does not work: .*num_groups'),
    ('model.decode_head.num_classes', 21, r'has 150 classes \(wall, building, sky and 147 more\)'),
    ('model.auxiliary_head.num_classes', 200, 'set num_classes=150'),
    ('model.decode_head.in_index', [0, 1, 2, 9], r'gives 4 feature map\(s\), 0 to 3'),
    ('model.decode_head.in_channels', [32] * 3, 'expected as many of the one as of the other'),
    ('model.auxiliary_head.in_channels', 31, 'feature maps of 32 channels'),
    ('model.test_cfg.stride', (500, 500), 'is more than the crop_size'),
    ('data.val.classes', ['wall'], 'data.train has 150 classes, data.val 1: .*--no-validate'),
])
def test_a_training_is_refused(loaded, key, value, message):
    if key == 'lr_config':
        loaded = copy.deepcopy(loaded)
        loaded.pop(key)
    with pytest.raises(InputError, match=message):
        check(loaded, {key: value})


@pytest.mark.parametrize(('key', 'value', 'message'), [
    ('feature_cache', dict(dir='x'), 'feature_cache: the tokens of InternViTAdapter change'),
    ('sweep', dict(lr=[1e-3]), "sweep: model.backbone.type='InternViTAdapter': expected"),
    ('model.backbone.pretrained', 'none.pth', 'pretrained file none.pth does not exist'),
    ('model.backbone.interaction_indexes', [[0, 4]], r'interaction_indexes=\[\[0, 4\]\]'),
    ('model.backbone.adapt', dict(type='lora'), "unknown key .*'adapt'"),
    ('model.backbone.init_values', 'x', 'init_values'),
    ('model.auxiliary_head.in_index', 4, r'gives 4 feature map\(s\)'),
])
def test_a_training_of_a_vit_adapter_is_refused(adapter, key, value, message):
    with pytest.raises(InputError, match=message):
        check(adapter, {key: value})


OTHER = dict(_delete_=True, type='FrozenViT', name='vit_small_patch14_dinov2', with_fpn=True,
             overrides=dict(embed_dim=32, depth=4, num_heads=2), out_indices=[0, 1, 2, 3])


@pytest.mark.parametrize(('changes', 'message'), [
    ({}, ''),
    (dict(name='vit_smal_patch14_dinov2'), "did you mean 'vit_small_patch14_dinov2'"),
    (dict(pretrained='none.pth'), 'pretrained file none.pth does not exist'),
    (dict(out_indices=[0, 1, 2, 4]), 'between 0 and depth - 1 = 3'),
    (dict(overrides=dict(embed_dim=48, depth=4, num_heads=2)), 'gives feature maps of 48 channels'),
    (dict(mean=[0.0, 0.0, 0.0]), 'data.train.pipeline normalises by mean=.*set model.backbone.mea'),
    (dict(adapt=dict(type='lora')), 'a FrozenViT is frozen as it is'),
])
def test_a_network_of_another_library_is_checked(loaded, changes, message):
    cfg = copy.deepcopy(loaded)
    cfg.model.backbone = {**OTHER, **changes}
    cfg.model.backbone.pop('_delete_')
    if not message:
        check(cfg, {})
        return
    with pytest.raises(InputError, match=message):
        check(cfg, {})


def test_what_a_run_does_not_read_is_not_checked(loaded):
    check(loaded, {'data.val.classes': ['wall'], 'evaluation.metric': 'mIou',
                   'model.test_cfg.stride': (500, 500)}, no_validate=True)
    check(loaded, {'load_from': 'none.pth', 'model.decode_head.num_classes': 171},
          auto_resume=True)
    check(loaded, {'optimizer.betas': [0.9, 1.0], 'workflow': 3}, ('test',), checkpoint='none',
          owns_work_dir=False)


def test_a_run_of_deepspeed_is_not_begun_anew_where_it_was_to_be_resumed(loaded, tmp_path):
    states = tmp_path / 'iter_8/global_step8/mp_rank_00_model_states.pt'
    states.parent.mkdir(parents=True)
    states.touch()
    check(loaded, {'work_dir': str(tmp_path)}, auto_resume=True)  # Nothing says which one.
    (tmp_path / 'latest').symlink_to('iter_8')
    check(loaded, {'work_dir': str(tmp_path)})
    with pytest.raises(InputError, match='--auto-resume: .*DeepSpeed alone.*--load-from .*latest/'):
        check(loaded, {'work_dir': str(tmp_path)}, auto_resume=True)
    (tmp_path / 'iter_4.pth').touch()
    check(loaded, {'work_dir': str(tmp_path)}, auto_resume=True)


def test_a_test_is_refused(loaded):
    for key, value, message in (('model.decode_head.num_classes', 21, 'config has 21 classes'),
                                ('model.backbone.num_heads', 3, 'divisor'),
                                ('model.test_cfg.stride', (500, 500), 'crop_size')):
        with pytest.raises(InputError, match=message):
            check(loaded, {key: value}, ('test',), checkpoint='none', owns_work_dir=False)
    with pytest.raises(InputError, match=r'checkpoint none.pth does not exist'):
        check(loaded, {}, ('test',), checkpoint='none.pth', owns_work_dir=False)


def test_a_head_of_a_plugin_that_needs_values_is_left_to_the_run(loaded):
    @HEADS.register_module()
    class Measuring(nn.Module):
        def __init__(self, **options):
            super().__init__()
            self.count = int(nn.Linear(1, 1).weight.sum().item())

    check(loaded, {'model.decode_head.type': 'Measuring'})


def test_classes_that_configs_name(tmp_path):
    (tmp_path / 'names.txt').write_text('sky\nwall\n')
    train = [dict(type='ADE20KDataset', classes=str(tmp_path / 'names.txt')),
             dict(type='RepeatDataset', dataset=dict(type='ADE20KDataset', classes=['sky']))]
    assert classes_by_config(train) == [('sky', 'wall'), ('sky',)]
    assert classes_by_config(dict(type='OfAPlugin', classes=['sky'])) == []


@pytest.mark.parametrize('option, shown', [
    ('data.train.data_root=/nowhere', 'image folder /nowhere/images/training does not exist'),
    ('optimizer.weigth_decay=0.1', "'weigth_decay' (did you mean 'weight_decay'?)"),
    ('data.train.pipeline.6.mean=[1,2]', 'step 6 (Normalize) of the pipeline fails on')])
def test_a_refusal_stands_alone(shared_data, tmp_path, run_tool, option, shown):
    """Nothing is built before it, and at most a few lines are before it."""
    path = write_config(tmp_path / 'config.py', shared_data, extra=SMALL_LINEAR)
    code, out, error = run_tool('train.py', path, '--work-dir', tmp_path / 'run', '--device', 'cpu',
                                '--cfg-options', option)
    assert code == 1 and shown in error.splitlines()[-1]
    assert 'parameter groups' not in out + error
    assert len(error.splitlines()) < (40 if 'Normalize' in shown else 8)


@pytest.mark.parametrize('options, shown', [
    (['--engine', 'fsdp2'], "engine 'fsdp2' needs a process group"),
    (['--work-dir', '/dev/null'], 'work dir /dev/null cannot be made: File exists')])
def test_a_run_that_cannot_start(shared_data, tmp_path, run_tool, options, shown):
    path = write_config(tmp_path / 'config.py', shared_data, extra=SMALL_LINEAR)
    code, _, error = run_tool('train.py', path, '--work-dir', tmp_path / 'run', '--device', 'cpu',
                              *options)
    assert code == 1 and shown in error.splitlines()[-1] and 'Loaded' not in error


def test_images_that_are_no_multiple_of_the_patch(shared_data, tmp_path, run_tool):
    path = write_config(tmp_path / 'config.py', shared_data, extra=SMALL_LINEAR + (
        "data['train']['pipeline'][-3].update(size=(57, 57))"))
    code, out, error = run_tool('train.py', path, '--work-dir', tmp_path / 'run', '--device', 'cpu')
    assert code == 1 and 'expected multiples of the 14-pixel patch' in error.splitlines()[-1]
    assert 'parameter groups' not in out + error


def test_images_that_are_no_multiple_of_the_adapter_s_cells(shared_data, tmp_path, run_tool):
    path = write_config(tmp_path / 'config.py', shared_data, 'vit_adapter_tiny', ADAPTER)
    code, _, error = run_tool('train.py', path, '--work-dir', tmp_path / 'run', '--device', 'cpu',
                              '--cfg-options', 'data.train.pipeline.3.crop_size=(80,80)',
                              'data.train.pipeline.7.size=(80,80)')
    assert code == 1 and '80x80 pixels: expected multiples of the 32' in error.splitlines()[-1]


def test_the_config_is_checked_once(shared_data, tmp_path, monkeypatch):
    import mmseg_custom.engine.config_check.check as module
    from mmseg_custom.engine.config import load_checked_config
    calls = []
    monkeypatch.setattr(module, 'sections', lambda cfg: calls.append(1) or iter(()))
    cfg, _ = load_checked_config(str(write_config(tmp_path / 'config.py', shared_data)))
    check(cfg, {'work_dir': str(tmp_path)})
    assert len(calls) == 1
