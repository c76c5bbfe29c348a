"""Configs of the fork with DeepSpeed: each setting has a counterpart, or is named."""
import copy
import json

import pytest
from helpers.data import SMALL_LINEAR, write_config
from helpers.mutations import mutations
from mmcv import Config

from mmseg_custom.engine.config import load_config, resolve_config
from mmseg_custom.engine.deepspeed import replace_deepspeed
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.errors import InputError

ZERO = dict(train_batch_size=16, gradient_accumulation_steps=1, bf16=dict(enabled=True),
            zero_optimization=dict(stage=1, reduce_bucket_size=5e8), log=dict(steps_per_print=50),
            optimizer=dict(type='Adam', params=dict(lr=4e-5)))
EIGHT = RunOptions(launcher='pytorch')
RECIPE = """
deepspeed = True
deepspeed_config = 'zero_configs/zero.json'
data['samples_per_gpu'] = 2
evaluation = dict(interval=1000)
if deepspeed:
    checkpoint_config = dict(deepspeed=deepspeed, by_epoch=False, interval=1000, max_keep_ckpts=2)
custom_hooks = [dict(type='ToBFloat16Hook', priority=49)]
log_config = dict(interval=50, hooks=[dict(type='TextLoggerHook')])
"""


@pytest.fixture
def fork(shared_data, tmp_path):
    """A function that resolves a config in a copy of the fork's folders: (config, notes)."""
    folder = tmp_path / 'configs/intern_vit_6b/few_shot'
    folder.mkdir(parents=True)

    def resolve(settings=None, extra='', options=EIGHT, **changes):
        if settings is not None:
            (tmp_path / 'zero_configs').mkdir(exist_ok=True)
            text = settings if isinstance(settings, str) else json.dumps({**settings, **changes})
            (tmp_path / 'zero_configs/zero.json').write_text(text)
        path = write_config(folder / 'few_shot.py', shared_data,
                            extra=SMALL_LINEAR + RECIPE + extra)
        return resolve_config(load_config(str(path)), options)
    return resolve


def test_a_config_of_the_fork_with_its_json(fork, tmp_path):
    cfg, (note,) = fork(ZERO)
    assert cfg.engine == dict(type='auto')
    assert cfg.checkpoint_config == dict(by_epoch=False, interval=1000, max_keep_ckpts=2)
    assert not {'deepspeed', 'deepspeed_config', 'precision'}.intersection(cfg)
    assert note == (
        f"deepspeed=True: PyTorch's own engines are used. {tmp_path}/zero_configs/zero.json: bf16 "
        "is that of ToBFloat16Hook; ZeRO stage 1 is engine.type='auto' (DDP where the backbone is "
        'frozen, FSDP2 where it is trained); train_batch_size=16 is that of 8 process(es), or with '
        'any number of them --total-batch 16; without effect: '
        'zero_optimization.reduce_bucket_size, log, optimizer')


def test_without_its_json_the_config_alone_decides(fork):
    cfg, notes = fork()
    assert 'engine' not in cfg and notes == [
        "deepspeed=True: PyTorch's own engines are used; deepspeed_config='zero_configs/zero.json' "
        'does not exist, so that the config alone decides']


def test_nothing_is_said_where_it_is_off(fork):
    cfg, notes = fork('no JSON', extra='deepspeed = False')
    assert notes == [] and not {'deepspeed', 'deepspeed_config'}.intersection(cfg)
    assert 'deepspeed' not in cfg.checkpoint_config


@pytest.mark.parametrize('stage, extra, options, engine, said', [
    (0, '', EIGHT, dict(type='ddp'), "stage 0 is engine.type='ddp'"),
    (2, '', EIGHT, dict(type='auto'), "stage 2 is engine.type='auto'"),
    (3, '', EIGHT, dict(type='fsdp2'), "stage 3 is engine.type='fsdp2' (FSDP2)"),
    (3, '', RunOptions(), None, 'stage 3 has no effect in one process'),
    (3, "engine = dict(type='ddp')", EIGHT, dict(type='ddp'),
     "stage 3 gives way to engine.type='ddp'"),
    (1, '', RunOptions(launcher='slurm', engine='fsdp2'), dict(type='fsdp2'),
     "stage 1 gives way to engine.type='fsdp2'"),
    (1, 'engine = dict(prefetch=2)', EIGHT, dict(type='auto', prefetch=2), "engine.type='auto'")])
def test_stages(fork, stage, extra, options, engine, said):
    cfg, (note,) = fork(ZERO, extra, options, zero_optimization=dict(stage=stage))
    assert cfg.get('engine') == engine and said in note


@pytest.mark.parametrize('zero, extra, offload, said', [
    (dict(offload_optimizer=dict(device='cpu')), '', True, 'offload_optimizer: engine.cpu_'),
    (dict(offload_param=dict(device='nvme')), '', True, 'offload_param: engine.cpu_offload=True'),
    (dict(cpu_offload=True), 'engine = dict(cpu_offload=False)', False, 'cpu_offload=False'),
    (dict(offload_param=dict(device='none')), '', None, None),
    (dict(offload_param=None), '', None, None)])
def test_offloading(fork, zero, extra, offload, said):
    cfg, (note,) = fork(ZERO, extra, zero_optimization=dict(stage=2, **zero))
    assert cfg.engine.get('cpu_offload') is offload
    assert ('engine.cpu_offload' in note) == (said is not None) and (said or '') in note


@pytest.mark.parametrize('changes, extra, precision, said', [
    (dict(bf16={}, fp16=dict(enabled=True, loss_scale=0)), 'custom_hooks = []', 'fp16',
     "fp16 is that of precision='fp16', losses are not scaled; "),
    (dict(bf16={}), 'custom_hooks = []', 'fp32', "fp32 is that of precision='fp32'; "),
    (dict(bf16={}, bfloat16=dict(enabled=True)), 'custom_hooks = []', 'bf16',
     "bf16 is that of precision='bf16'"),
    (dict(bf16={}, fp16=dict(enabled=True)), '', None, 'fp16 gives way to ToBFloat16Hook, losses'),
    ({}, "precision = 'fp32'", 'fp32', "bf16 gives way to precision='fp32'")])
def test_precision(fork, changes, extra, precision, said):
    for options in (EIGHT, RunOptions(checkpoint='x.pth')):
        cfg, (note,) = fork(ZERO, extra, options, **changes)
        assert cfg.get('precision') == precision and said in note
        assert ('ZeRO' in note) == (options is EIGHT)  # No setting of a training in a test.


@pytest.mark.parametrize('changes, extra, said', [
    (dict(train_batch_size=9), '', 'train_batch_size=9 is no multiple of data.samples_per_gpu=2,'),
    (dict(train_batch_size='auto'), '', None),
    ({}, 'total_batch = 16', None),
    ({}, 'total_batch = 8', 'train_batch_size=16 gives way to total_batch=8'),
    (dict(train_micro_batch_size_per_gpu=4), '', 'per_gpu=4 gives way to data.samples_per_gpu=2'),
    (dict(gradient_accumulation_steps=4), '', 'train_batch_size=16 is that of 2 process(es);')])
def test_the_batch_is_compared(fork, changes, extra, said):
    cfg, (note,) = fork(ZERO, extra, **changes)
    assert cfg.data.samples_per_gpu == 2
    assert said in note if said else 'train_batch_size' not in note


@pytest.mark.parametrize('extra, hook, said', [
    ('', dict(type='GradientCumulativeOptimizerHook', cumulative_iters=4),
     'gradient_accumulation_steps=4 is optimizer_config.cumulative_iters=4'),
    ("optimizer_config = dict(type='GradientCumulativeOptimizerHook', cumulative_iters=2)",
     dict(type='GradientCumulativeOptimizerHook', cumulative_iters=2),
     'gives way to optimizer_config.cumulative_iters=2'),
    ('accumulation = 2\noptimizer_config = dict()', {},
     'gradient_accumulation_steps=4 gives way to accumulation=2')])
def test_accumulation_counts_iterations_as_there(fork, extra, hook, said):
    cfg, (note,) = fork(ZERO, extra, gradient_accumulation_steps=4)
    assert cfg.optimizer_config == hook and said in note


@pytest.mark.parametrize('extra, norm, said', [
    ('', 0.1, 'gradient_clipping=0.1 is optimizer_config.grad_clip.max_norm=0.1'),
    ('optimizer_config = dict(grad_clip=dict(max_norm=1.0))', 1.0,
     'gradient_clipping=0.1 gives way to optimizer_config.grad_clip.max_norm=1')])
def test_clipping(fork, extra, norm, said):
    cfg, (note,) = fork(ZERO, extra, gradient_clipping=0.1)
    assert cfg.optimizer_config['grad_clip']['max_norm'] == norm and said in note


def test_settings_within_the_config(fork):
    cfg, (note,) = fork(extra='deepspeed_config = dict(zero_optimization=dict(stage=3))')
    assert cfg.engine.type == 'fsdp2' and '. deepspeed_config: fp32 gives way to ToB' in note


@pytest.mark.parametrize('settings, message', [
    ('{', r'zero.json is no JSON file .*: expected the settings of DeepSpeed'),
    ('[1]', r'zero.json: \[1\], expected a mapping'),
    ('{"zero_optimization": {"stage": 4}}', r'zero_optimization.stage: 4, expected a stage of 0'),
    ('{"zero_optimization": {"stage": [1]}}', r'zero_optimization.stage: \[1\], expected'),
    ('{"zero_optimization": {"stge": 1}}', r"unknown key zero_optimization.stge .*'stage'"),
    ('{"bf16": true}', 'bf16: True, expected a mapping'),
    ('{"bf16": {"enabled": 1}}', 'bf16.enabled: 1, expected true or false'),
    ('{"train_batchsize": 16}', r"unknown key train_batchsize \(did you mean 'train_batch_size'"),
    ('{"gradient_clipping": "1"}', "gradient_clipping: '1', expected a number of 0 or more")])
def test_a_json_that_is_wrong(fork, settings, message):
    with pytest.raises(InputError, match=message):
        fork(settings)


def test_settings_that_are_wrong_anywhere_end_in_one_line():
    settings = dict(ZERO, fp16={}, train_micro_batch_size_per_gpu=2, gradient_clipping=1.0)
    settings['zero_optimization'] = dict(stage=2, offload_param=dict(device='cpu'))
    for name, mutated in mutations(settings):
        cfg = Config(dict(deepspeed=True, data=dict(samples_per_gpu=2)))
        cfg._cfg_dict['deepspeed_config'] = copy.deepcopy(mutated)
        try:
            assert all(note.isprintable() for note in replace_deepspeed(cfg, EIGHT)), name
        except InputError as error:
            assert str(error).isprintable(), name


@pytest.mark.parametrize('extra, message', [
    ('deepsped = True', "nothing reads 'deepsped'; did you mean 'deepspeed'"),
    ("deepspeed_confg = 'x.json'", "did you mean 'deepspeed_config'"),
    ("deepspeed = 'yes'", "deepspeed='yes': expected True or False"),
    ('deepspeed_config = 3', 'deepspeed_config=3: expected a string or dict'),
    ("checkpoint_config['deepspeed'] = 'x'", "checkpoint_config.deepspeed='x': expected True or F"),
    ("checkpoint_config['deepsped'] = True", "unknown key in checkpoint_config: 'deepsped'"),
    ('optimizer_config = dict(deepspeed=True)', "unknown key in optimizer_config: 'deepspeed'"),
    ("data['deepspeed'] = True", "unknown key in data: 'deepspeed'"),
    ("model['backbone']['deepspeed'] = True", "unknown key in model.backbone: 'deepspeed'")])
def test_the_keys_are_known_in_their_places_alone(fork, extra, message):
    with pytest.raises(InputError, match=message):
        fork(extra=extra)


def test_a_dump_of_the_config_is_resolved_to_the_same(fork, tmp_path):
    cfg, _ = fork(ZERO, gradient_accumulation_steps=2, gradient_clipping=1)
    cfg.dump(str(tmp_path / 'copy.json'))
    again, notes = resolve_config(load_config(str(tmp_path / 'copy.json')), EIGHT)
    assert notes == []
    for name in ('engine', 'optimizer_config', 'checkpoint_config'):
        assert again[name] == cfg[name]
