"""The door of configs: what is mistyped or of a wrong kind is refused, what is valid is not."""
import ast
import copy
from pathlib import Path

import mmseg
import pytest
import torch
from helpers.commands import ROOT
from helpers.data import write_config
from mmcv import Config
from mmcv.runner import HOOKS, OPTIMIZERS, Hook
from mmseg.datasets import DATASETS, CustomDataset
from mmseg.models import HEADS, SEGMENTORS
from mmseg.models.decode_heads import UPerHead
from mmseg.models.segmentors import EncoderDecoder

from mmseg_custom.engine.before_start import check_before_start
from mmseg_custom.engine.config import load_config, resolve_config
from mmseg_custom.engine.config_check import check_config
from mmseg_custom.engine.config_check.tables import SETTINGS_OF_RUNS, WITHOUT_EFFECT
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.errors import InputError

THEIRS = sorted((Path(mmseg.__file__).parent / '.mim/configs').glob('[!_]*/'))[::3]


@pytest.fixture(scope='module')
def resolved(tmp_path_factory):
    path = write_config(tmp_path_factory.mktemp('config') / 'some.py', Path('data'),
                        'head_tuning_tiny')
    return load_config(str(path))


@pytest.fixture
def config(tmp_path):
    """A function that writes a config with more lines, and returns its path."""
    return lambda extra='': str(write_config(tmp_path / 'some.py', Path('data'), extra=extra))


@pytest.mark.parametrize(('key', 'message'), [
    ('optimzer.lr', "nothing reads 'optimzer'; did you mean 'optimizer.lr'"),
    ('nonsense', "nothing reads 'nonsense'"),
    ('optimizer.lrr', r"unknown key in optimizer: 'lrr' \(did you mean 'lr'\?\)"),
    ('optimizer.paramwise_cfg.num_layer', 'did you mean .num_layers'),
    ('optimizer_config.grad_clip.max_nrom', 'did you mean .max_norm'),
    ('model.decode_haed.channels', 'did you mean .decode_head'),
    ('model.decode_head.loss_decode.loss_wieght', 'did you mean .loss_weight'),
    ('model.decode_head.norm_cfg.nothing', 'unknown key in model.decode_head.norm_cfg'),
    ('model.test_cfg.strid', 'did you mean .stride'),
    ('data.samples_per_gp', 'did you mean .samples_per_gpu'),
    ('data.train.pipeline.2.img_scal', 'unknown key in data.train.pipeline.2: .*img_scale'),
    ('data.val.pipeline.1.transforms.0.crop_siz', 'pipeline.1.transforms.0: .*crop_size'),
    ('evaluation.metrics', 'did you mean .metric'),
    ('evaluation.foo', 'unknown key in evaluation'),
    ('lr_config.warmup_iter', 'did you mean .warmup_iters'),
    ('checkpoint_config.intervals', 'did you mean .interval'),
    ('runner.max_iter', 'did you mean .max_iters'),
    ('log_config.hooks.0.by_epch', 'did you mean .by_epoch'),
    ('data_root', 'has used its variable already; set data.train.data_root'),
    ('seed', 'a run does not read it; use --seed'),
])
def test_a_mistyped_option_is_refused_with_the_nearest_name(config, key, message):
    if 'norm_cfg' in key:
        extra = "model = dict(decode_head=dict(norm_cfg=dict(type='SyncBN')))"
    else:
        extra = 'optimizer_config = dict(grad_clip=dict(max_norm=1.0))'
    with pytest.raises(InputError, match=message):
        load_config(config(extra), {key: 1})


def test_a_mistyped_key_of_a_file_is_refused_and_a_variable_is_not(config, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="nothing reads 'optimzer'; did you mean 'optimizer'"):
        load_config(config('optimzer = dict(lr=1)'))
    with pytest.raises(InputError, match="unknown key in model.backbone: 'dept'"):
        load_config(config('model = dict(backbone=dict(dept=1))'))
    used = 'optimizers = dict(lr=1e-3)\noptimizer = dict(lr=optimizers["lr"])'
    assert check_config(load_config(config(used))) == []
    assert check_config(load_config(config('mine = 1'))) == ['mine']
    assert check_config(load_config(config('evaluation = dict(mine=1)'))) == ['evaluation.mine']

    (tmp_path / 'a_plugin.py').write_text('def read(cfg):\n    return cfg.mine, cfg.optimizers\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    imports = "custom_imports = dict(imports=['mmseg_custom', 'a_plugin'])\n"
    path = config(imports + 'mine = 1\noptimizers = 2')
    assert check_config(load_config(path, {'mine': 3})) == []


def test_a_variable_that_a_config_takes_from_its_base_is_read(config, tmp_path):
    base = config('optimizers = dict(lr=1e-3)')
    path = tmp_path / 'child.py'
    path.write_text(f"_base_ = '{base}'\noptimizer = {{{{_base_.optimizers}}}}")
    assert check_config(load_config(str(path))) == []


@pytest.mark.parametrize(('key', 'value', 'expected'), [
    ('model.backbone.num_heads', True, 'a whole number of 1 or more'),
    ('model.backbone.qkv_bias', 'yes', 'True or False'),
    ('model.backbone.out_indices', [], 'a list'),
    ('model.decode_head.num_classes', '150', 'a whole number'),
    ('model.decode_head.norm_cfg', 'SyncBN', r'dict\(type='),
    ('model.auxiliary_head.loss_decode.loss_weight', None, 'a number'),
    ('data.samples_per_gpu', 0, 'a whole number of 1 or more'),
    ('data.train.pipeline', [1], r'a list of entries, each dict\(type='),
    ('data.train.pipeline.6.std', 'abc', 'a number'),
    ('data.train.pipeline.6.std', [1., 0., 1.], 'a number above 0'),
    ('lr_config.warmup_ratio', 0, 'a number above 0'),
    ('optimizer.lr', -1, 'a number of 0 or more'),
    ('optimizer.lr', float('nan'), 'a number of 0 or more'),
    ('optimizer.betas', [], 'a list of 2 entries'),
    ('runner.max_iters', 0, 'a whole number of 1 or more'),
    ('feature_cache', True, r'dict\(...\)'),
    ('evaluation.interval', 2.5, 'a whole number'),
    ('optimizer_config', dict(grad_clip=dict(max_norm=0)), 'a number above 0'),
    ('custom_hooks', [dict(type='EMAHook', priority='HIGHX')], 'one of HIGHEST, VERY_HIGH'),
    ('log_config.hooks', [dict(type='TextLoggerHook', priority=101)], 'one of HIGHEST'),
    ('log_level', 'info', "one of 'CRITICAL'"),
    ('engine', dict(prefetch='one'), 'a whole number'),
])
def test_a_value_of_another_kind_is_refused(resolved, key, value, expected):
    cfg = copy.deepcopy(resolved)
    cfg.merge_from_dict({key: value})
    with pytest.raises(InputError, match=f'{key}.*=.*: expected {expected}'):
        check_config(cfg)


def test_types_and_policies_that_are_not_registered_are_refused(resolved):
    for key, value, message in (
            ('model.decode_head.loss_decode.type', 'CrossEntropy', "did you mean 'CrossEntropyLos"),
            ('lr_config.policy', 'polly', "lr_config.policy='polly' .* did you mean 'poly'"),
            ('optimizer.constructor', 'None', 'not in the optimizer builder registry')):
        cfg = copy.deepcopy(resolved)
        cfg.merge_from_dict({key: value})
        with pytest.raises(InputError, match=message):
            check_config(cfg)


@pytest.mark.parametrize('folder', THEIRS, ids=[folder.name for folder in THEIRS])
def test_the_configs_of_mmseg_are_accepted(folder):
    """One of each method, as it is, and as mmseg's training writes it beside its checkpoints."""
    cfg = Config.fromfile(sorted(folder.glob('*.py'))[0])
    check_config(cfg)
    check_config(Config(cfg._cfg_dict))
    for options, splits in ((RunOptions(), ('train', 'val')),
                            (RunOptions(owns_work_dir=False, checkpoint='none'), ('test',))):
        check_before_start(resolve_config(cfg, options)[0], options, splits)


def test_a_plugin_s_class_keeps_its_own_ways(resolved):
    @HOOKS.register_module()
    class Free(Hook):
        def __init__(self, every: int = 1, **others):
            self.every, self.others = every, others

    cfg = copy.deepcopy(resolved)
    cfg.custom_hooks = [dict(type='Free', every='epoch', priority='LOW', anything=1)]
    assert check_config(cfg) == ['custom_hooks.0.anything']


def test_a_plugin_s_class_may_read_its_own_keys(resolved):
    @OPTIMIZERS.register_module()
    class Adan(torch.optim.Optimizer):
        def __init__(self, params, lr=None, betas=(0.98, 0.92, 0.99), eps=1e-8):
            super().__init__(params, dict(lr=lr, betas=betas, eps=eps))

    @HEADS.register_module()
    class GatedHead(UPerHead):
        def __init__(self, loss_decode=None, **kwargs):
            self.channel = kwargs.pop('channel')
            super().__init__(**kwargs)

    @SEGMENTORS.register_module()
    class Masked(EncoderDecoder):
        pass

    @DATASETS.register_module()
    class Scored(CustomDataset):
        def evaluate(self, results, metrics='PQ', logger=None):
            return {}

    cfg = copy.deepcopy(resolved)
    cfg.optimizer = dict(type='Adan', lr=None, betas=(0.9, 0.9, 0.9))
    cfg.model.update(type='Masked', test_cfg=dict(mode='whole_mask'))
    cfg.model.decode_head.update(type='GatedHead', channel=1, loss_decode=dict(ce=1, dice=2))
    cfg.data.val.type = 'Scored'
    cfg.evaluation = dict(metrics='PQ')
    assert check_config(cfg) == []
    cfg.model.decode_head.chanel = 1
    with pytest.raises(InputError, match="unknown key in model.decode_head: 'chanel'"):
        check_config(cfg)


@pytest.mark.parametrize('options', [
    dict(crop_size=512), dict(mp_start_method=None, opencv_num_threads=-1), dict(evaluation=None),
    dict(optimizer=dict(type='Adafactor', lr=1e-3, eps=(None, 1e-3))),
    dict(load_from_without=['decode_head.conv_seg'])])
def test_what_mmseg_and_torch_take_is_accepted(resolved, options):
    cfg = Config({**copy.deepcopy(resolved._cfg_dict), **options})
    assert check_config(cfg) == []


def test_a_training_s_values_may_be_wrong_in_a_test(resolved):
    cfg = copy.deepcopy(resolved)
    cfg.merge_from_dict({'optimizer.lr': -1, 'data.train.pipeline': None, 'runner.type': 'Mine',
                         'custom_hooks': [dict(type='Gone')]})
    assert check_config(cfg, trains=False) == []
    with pytest.raises(InputError):
        check_config(cfg)


def test_all_keys_that_the_package_reads_are_known():
    """A key that is read somewhere and not listed here would be refused."""
    known = {*SETTINGS_OF_RUNS, *WITHOUT_EFFECT}
    for path in [*(ROOT / 'mmseg_custom/engine').rglob('*.py'),
                 *(ROOT / 'mmseg_custom/doctor').glob('*.py'), *(ROOT / 'tools').glob('*.py')]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and (
                    node.func.attr == 'get' and ast.unparse(node.func.value).endswith('cfg')
                    and node.args and isinstance(node.args[0], ast.Constant)):
                name = node.args[0].value
                of_run = ast.unparse(node.func.value) in ('cfg', 'run.cfg', 'self.run.cfg')
                assert name in known or not of_run, f'{path}:{node.lineno} reads {name!r}'


@pytest.mark.parametrize('change, message', [
    ({'optimizer.paramwise_cfg.custom_keys': dict(head=dict(lr_mul=10))},
     "custom_keys.head: 'lr_mul' .did you mean 'lr_mult'"),
    ({'optimizer.paramwise_cfg.custom_keys': dict(head=dict(lr_mult=-1))}, 'a number of 0 or more'),
    ({'optimizer.paramwise_cfg.custom_keys': dict(head=10)}, r'custom_keys.head=10: expected dict'),
    ({'optimizer.paramwise_cfg.norm_decay_mult': -1}, 'a number of 0 or more'),
    ({'optimizer.type': 'Adamw'}, "did you mean 'AdamW'"),
    ({'optimizer.type': 'SGD'}, "'betas'; known keys of SGD: .*optimizer._delete_=True"),
    ({'lr_config.policy': 'poli'}, "did you mean 'poly'"),
    ({'lr_config.min_lr': -1}, 'a number of 0 or more'),
    ({'custom_hooks': [dict(type='EMAHook', momentum=2.0)]}, 'custom_hooks.0.momentum=2.0'),
    ({'precision': 'bf15'}, "one of None, 'bf16'")])
def test_options_of_optimizers_schedules_and_hooks(resolved, change, message):
    cfg = copy.deepcopy(resolved)
    cfg.optimizer.constructor, cfg.optimizer.paramwise_cfg = 'DefaultOptimizerConstructor', {}
    assert check_config(cfg) == []
    cfg.merge_from_dict(change)
    with pytest.raises(InputError, match=message):
        check_config(cfg)


def test_options_of_the_optimizer_in_low_memory_are_known(resolved):
    cfg = copy.deepcopy(resolved)
    cfg.optimizer = dict(type='LowMemoryAdamW', state='bf16', lr=1e-3, betas=(0.9, 0.95), eps=1e-7,
                         weight_decay=0.1)
    assert check_config(cfg) == []


def test_what_layer_decay_does_not_read_is_reported(resolved):
    cfg = copy.deepcopy(resolved)
    cfg.merge_from_dict({'optimizer.paramwise_cfg.custom_keys': dict(head=dict(lr_mult=10))})
    assert check_config(cfg) == ['optimizer.paramwise_cfg.custom_keys']
