"""Averages of weights are evaluated and saved, and the training goes on as without them."""
import json
import logging
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from helpers.data import SMALL_LINEAR, prepare, write_config
from helpers.runs import losses, sharded_state
from mmcv import Config
from mmcv.runner import EpochBasedRunner
from mmcv.runner.hooks import EMAHook
from torch import nn

from mmseg_custom.checkpoint.averages import swapped_name
from mmseg_custom.distributed.wrappers import SegmentorAlone
from mmseg_custom.engine.build import build_network
from mmseg_custom.engine.ema import SegEMAHook, averaged, build_ema_hook
from mmseg_custom.engine.train import register_custom_hooks
from mmseg_custom.errors import InputError

PLAIN = SMALL_LINEAR + """
runner = dict(max_iters=4)
evaluation = dict(interval=2)
data['train']['max_image_num'] = 4
optimizer_config = dict(grad_clip=dict(max_norm=1.0))
"""
EMA = PLAIN + "custom_hooks = [dict(type='EMAHook', momentum=0.3, warm_up=2)]\n"


def figures(folder):
    lines = map(json.loads, next(folder.glob('*.log.json')).read_text().splitlines())
    return [line for line in lines if 'mIoU' in line]


def content(path):
    if path.is_dir():
        return sharded_state(path)
    saved = torch.load(path, weights_only=True)
    return {**saved['state_dict'], **{f'{i}.{name}': value for i, values in
                                      saved['optimizer']['state'].items()
                                      for name, value in values.items()}}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(torch.as_tensor(found[name]), torch.as_tensor(value)), name


@pytest.fixture(scope='module')
def trained(zygote, shared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('ema')
    for name, extra in (('plain', PLAIN), ('ema', EMA)):
        write_config(folder / f'{name}.py', shared_data, extra=extra)
        zygote.train(folder / f'{name}.py', '--work-dir', folder / name, '--seed', 0)
    return folder


def test_training_is_not_changed(trained):
    assert losses(trained / 'ema') == losses(trained / 'plain')
    plain, ema = (content(trained / f'{name}/iter_4.pth') for name in ('plain', 'ema'))
    heads = [name for name in plain if name.startswith('decode_head') and 'running' not in name
             and 'num_batches' not in name]
    assert {name for name in ema if name.startswith('ema_')} == set(map(swapped_name, heads))
    for name in heads:
        assert torch.equal(ema[swapped_name(name)], plain[name])
        assert not torch.equal(ema[name], plain[name])


def test_averages_are_evaluated_by_all(run_tool, trained, tmp_path):
    first, last = figures(trained / 'ema')
    assert last['aAcc'] != figures(trained / 'plain')[1]['aAcc']
    for checkpoint in ('iter_4.pth', 'best_mIoU_iter_4.pth'):
        if not (trained / 'ema' / checkpoint).exists():
            continue
        code, _, err = run_tool('test.py', trained / 'ema.py', trained / 'ema' / checkpoint,
                                '--eval', 'mIoU', '--work-dir', tmp_path / checkpoint)
        assert code == 0 and 'for resuming, are left aside' in err
        found = json.loads(next((tmp_path / checkpoint).glob('eval_*.json')).read_text())['metric']
        assert found['aAcc'] == pytest.approx(last['aAcc'], abs=1e-4)
        assert found['mIoU'] == pytest.approx(last['mIoU'], abs=1e-4)


def test_a_run_is_resumed_with_its_averages(zygote, trained, tmp_path):
    zygote.train(trained / 'ema.py', '--work-dir', tmp_path / 'run', '--no-validate',
                 '--resume-from', trained / 'ema/iter_2.pth')
    assert_equal(content(tmp_path / 'run/iter_4.pth'), content(trained / 'ema/iter_4.pth'))


def test_a_checkpoint_of_mmcv_holds_them_the_other_way_round(zygote, trained, tmp_path):
    saved = torch.load(trained / 'ema/iter_2.pth', weights_only=True)
    del saved['meta']['ema']
    state = saved['state_dict']
    for name in [name for name in state if swapped_name(name) in state]:
        state[name], state[swapped_name(name)] = state[swapped_name(name)], state[name]
    torch.save(saved, tmp_path / 'iter_2.pth')
    zygote.train(trained / 'ema.py', '--work-dir', tmp_path / 'run', '--no-validate',
                 '--resume-from', tmp_path / 'iter_2.pth')
    assert_equal(content(tmp_path / 'run/iter_4.pth'), content(trained / 'ema/iter_4.pth'))


@pytest.mark.slow
@pytest.mark.parametrize('engine', ['ddp', 'fsdp2'])
def test_of_several_processes(zygote, shared_data, tmp_path, engine):
    config = write_config(tmp_path / 'config.py', shared_data, 'few_shot_tiny', EMA)
    suffix = 'dcp' if engine == 'fsdp2' else 'pth'
    options = ['--engine', engine]
    zygote.train(config, '--work-dir', tmp_path / 'whole', '--seed', 0, *options, ranks=2)
    zygote.train(config, '--work-dir', tmp_path / 'run', *options, '--resume-from',
                 tmp_path / f'whole/iter_2.{suffix}', ranks=2)
    whole = content(tmp_path / f'whole/iter_4.{suffix}')
    assert any('ema_backbone' in name for name in whole)
    assert_equal(content(tmp_path / f'run/iter_4.{suffix}'), whole)
    # The best score beside the checkpoint is of iteration 4: the evaluation of 2 is repeated.
    assert [line['aAcc'] for line in figures(tmp_path / 'run')] == [
        line['aAcc'] for line in figures(tmp_path / 'whole')]
    zygote.run('tools/test.py', config, tmp_path / f'whole/iter_4.{suffix}', '--eval', 'mIoU',
               '--work-dir', tmp_path / 'test')
    found = json.loads(next((tmp_path / 'test').glob('eval_*.json')).read_text())['metric']
    assert found['mIoU'] == pytest.approx(figures(tmp_path / 'whole')[1]['mIoU'], abs=1e-4)


def test_the_formula_is_that_of_mmcv():
    model = nn.Linear(3, 1)
    model.bias.requires_grad_(False)
    runner = SimpleNamespace(model=SegmentorAlone(model, 'cpu'), hooks=[], iter=0)
    hook = SegEMAHook(momentum=0.4, interval=2, warm_up=3)
    runner.hooks.append(hook)
    hook.before_run(runner)
    expected = model.weight.detach().clone()
    for runner.iter in range(6):
        model.weight.data.normal_()
        hook.after_train_iter(runner)
        if runner.iter % 2 == 0:
            momentum = min(0.4 ** 2, (1 + runner.iter) / (3 + runner.iter))
            expected = (1 - momentum) * expected + momentum * model.weight.detach()
    kept = model.weight.detach().clone()
    with averaged(runner) as weights:
        torch.testing.assert_close(model.weight.detach(), expected)
        assert list(weights) == ['ema_weight'] and torch.equal(weights['ema_weight'], kept)
    assert torch.equal(model.weight, kept)


@pytest.mark.parametrize('options, message', [
    (dict(momentum=2), 'momentum=2'), (dict(interval=0), 'interval=0'),
    (dict(decay=0.1), 'decay.*expected momentum, interval and warm_up')])
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        build_ema_hook(dict(type='EMAHook', **options))


def test_a_second_hook_is_refused():
    run = SimpleNamespace(cfg=Config(dict(custom_hooks=[dict(type='EMAHook')] * 2)))
    with pytest.raises(InputError, match="custom_hooks has 2 of type 'EMAHook': expected one"):
        register_custom_hooks(None, run)


def test_the_hook_of_mmcv_goes_on_from_it(trained, tmp_path):
    """At the start of an epoch it takes the weights back, and keeps the averages."""
    path = trained / 'ema/iter_4.pth'
    model = build_network(prepare(trained / 'ema.py', ()).cfg)
    runner = EpochBasedRunner(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
                              logger=logging.getLogger('ema'), work_dir=str(tmp_path), max_epochs=9)
    hook = EMAHook(resume_from=str(path))
    runner.resume = partial(runner.resume, resume_optimizer=False)
    hook.before_run(runner)
    hook.before_train_epoch(runner)
    saved, name = content(path), 'decode_head.conv_seg.weight'
    assert torch.equal(model.state_dict()[name], saved[swapped_name(name)])
    assert torch.equal(model.state_dict()[swapped_name(name)], saved[name])
