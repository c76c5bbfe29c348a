"""Adapters and last blocks, with all that a training from the command line may have besides."""
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.runs import (
    PARTLY,
    assert_same_end,
    losses,
    sharded_state,
    spread,
    without_the_end,
    write_backbone,
    write_small_config,
)

pytestmark = pytest.mark.slow
# Without what each rank draws for itself, and what turns rounding into differences: batch norm of
# four values in UPerNet's pooling, and whole steps of AdamW along gradients near zero.
EXACT = ['precision=fp32', 'model.backbone.drop_path_rate=0.0', 'optimizer.eps=1e-3',
         *(f'model.{head}.{setting}' for head in ('decode_head', 'auxiliary_head')
           for setting in ('dropout_ratio=0.0', 'norm_cfg=None'))]
SETTINGS = dict(
    averages="custom_hooks = [dict(type='EMAHook', momentum=0.3, warm_up=2)]\n",
    clipped='optimizer_config = dict(grad_clip=dict(max_norm=0.1))\n',
    low_memory="optimizer = dict(type='LowMemoryAdamW')\n",
    low_memory_bf16="optimizer = dict(type='LowMemoryAdamW', state='bf16')\n",
    heads="head_precision = 'bf16'\n",
    recomputed='engine = dict(checkpoint_every=2, checkpoint_blocks=1)\n')


@pytest.fixture(scope='module')
def train(zygote) -> Callable[..., str]:
    """Runs tools/train.py: (config, work_dir, ranks, engine, *arguments) -> what it printed."""
    zygote.import_once('peft')

    def train(config: Path, work_dir: Path, ranks: int, engine: str, *arguments: object) -> str:
        return zygote.train(config, '--work-dir', work_dir, *spread(ranks, engine), *arguments,
                            ranks=ranks)
    return train


@pytest.mark.parametrize('kind', PARTLY)
def test_losses_are_the_same_with_all_engines(train, tmp_path, kind):
    config = write_small_config(tmp_path, PARTLY[kind].replace(', dropout=0.3', ''))
    options = ['--seed', 5, '--no-validate', '--cfg-options', *EXACT]
    for ranks, engine in ((1, 'single'), (2, 'ddp'), (2, 'fsdp2')):
        text = train(config, tmp_path / engine, ranks, engine, *options)
        assert re.search('4 images a step = ', text)
    expected = [line['loss'] for line in losses(tmp_path / 'single').values()]
    assert len(expected) == 8
    for engine in ('ddp', 'fsdp2'):
        found = [line['loss'] for line in losses(tmp_path / engine).values()]
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('settings, kind, engine', [
    ('averages', 'lora', 'ddp'), ('averages', 'lora', 'fsdp2'),
    ('averages', 'last_blocks', 'fsdp2'),
    ('clipped', 'dora', 'fsdp2'), ('clipped', 'norms', 'ddp'),
    ('low_memory', 'lora', 'single'), ('low_memory', 'lora', 'fsdp2'),
    ('low_memory', 'last_blocks', 'fsdp2'), ('low_memory_bf16', 'dora', 'ddp'),
    ('heads', 'lora', 'fsdp2'), ('heads', 'last_blocks', 'ddp'), ('recomputed', 'lora', 'ddp')])
def test_what_is_set_besides_is_resumed_bit_for_bit(train, tmp_path, settings, kind, engine):
    ranks = 1 if engine == 'single' else 2
    if 'low_memory' in settings:
        pytest.importorskip('torchao')
    config = write_small_config(tmp_path, PARTLY[kind] + SETTINGS[settings])
    train(config, tmp_path / 'whole', ranks, engine, '--seed', 5, '--check-finite')
    without_the_end(tmp_path / 'whole', tmp_path / 'run')
    train(config, tmp_path / 'run', ranks, engine, '--auto-resume', '--check-finite')
    assert_same_end(tmp_path / 'run', tmp_path / 'whole')
    state = content(next((tmp_path / 'run').glob('iter_8.*')))
    averaged = {name for name in state if name.startswith('ema_backbone')}
    assert bool(averaged) == (settings == 'averages')
    trained = re.compile('lora_' if kind == 'lora' else r'blocks_[23]_')
    assert all(trained.search(name) for name in averaged if 'up' not in name)


def content(path: Path) -> dict:
    if path.suffix == '.dcp':
        return {name.removeprefix('state_dict.'): value
                for name, value in sharded_state(path).items()}
    return torch.load(path, weights_only=True)['state_dict']


@pytest.mark.parametrize('kind, pretrained', [
    ('lora', True), ('dora', False), ('last_blocks', False), ('norms', True)])
def test_shards_of_two_processes_are_read_by_one(zygote, train, tmp_path, kind, pretrained):
    """To test, to merge, and to train on; and a file of one process by two with shards."""
    extra = PARTLY[kind]
    if pretrained:
        extra += f"model['backbone'].update(pretrained='{write_backbone(tmp_path)}')\n"
    config = write_small_config(tmp_path, extra)
    train(config, tmp_path / 'two', 2, 'fsdp2', '--seed', 5)
    checkpoint = tmp_path / 'two/iter_8.dcp'
    zygote.run('tools/merge_checkpoint.py', checkpoint, tmp_path / 'whole.pth')
    metrics = []
    for path in (checkpoint, tmp_path / 'whole.pth'):
        zygote.run('tools/test.py', config, path, '--eval', 'mIoU', '--work-dir',
                   tmp_path / path.stem)
        found = next((tmp_path / path.stem).glob('eval_*.json'))
        metrics.append(json.loads(found.read_text())['metric'])
    assert metrics[0] == metrics[1]
    log = [json.loads(line) for line in next((tmp_path / 'two').glob('*.log.json')).open()]
    assert [line['mIoU'] for line in log if line.get('mode') == 'val'][-1] == pytest.approx(
        metrics[0]['mIoU'], abs=1e-4)
    longer = ['--no-validate', '--cfg-options', 'runner.max_iters=10']
    for ranks, engine, work_dir in ((1, 'single', 'one'), (2, 'fsdp2', 'two')):
        text = train(config, tmp_path / work_dir, ranks, engine, '--resume-from', checkpoint,
                     *longer)
        assert 'Iter [9/10]' in text
    end, expected = content(tmp_path / 'one/iter_10.pth'), content(tmp_path / 'two/iter_10.dcp')
    assert end.keys() == {name for name in expected if name in end}
    text = train(config, tmp_path / 'three', 2, 'fsdp2', '--resume-from',
                 tmp_path / 'one/iter_10.pth', '--no-validate', '--cfg-options',
                 'runner.max_iters=12')
    assert 'Iter [11/12]' in text


@pytest.mark.parametrize('ranks, engine', [(1, 'single'), (2, 'fsdp2')])
def test_a_run_of_adapters_that_diverges_is_stopped(zygote, tmp_path, ranks, engine):
    zygote.import_once('peft')
    config = write_small_config(tmp_path, PARTLY['dora'])
    text = zygote.train(config, '--work-dir', tmp_path / 'run', *spread(ranks, engine),
                        '--cfg-options', 'optimizer.lr=1e30', 'checkpoint_config.interval=1',
                        'evaluation.interval=1', ranks=ranks, code=1)
    assert re.search('is (nan|inf) in iteration', text) and 'Traceback' not in text
