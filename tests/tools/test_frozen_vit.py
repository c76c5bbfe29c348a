"""Runs of a network of another library: trained, resumed, cached, swept, tested, merged."""
import json
from pathlib import Path

import pytest
import torch
from helpers.data import draw_data, write_config
from helpers.runs import SMALL, assert_same_end, losses, spread, without_the_end
from safetensors.torch import save_file
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

HEAD = SMALL + """
optimizer = dict(paramwise_cfg=dict(num_layers=4, layer_decay_rate=1.0))
model['backbone'] = dict(_delete_=True, type='FrozenViT', name='{folder}', final_norm=True,
                         out_indices=[0, 1, 2, 3], with_fpn=True)
"""
LINEAR = """
model['decode_head'] = dict(
    _delete_=True, type='FCNHead', with_norm=True, num_convs=0, concat_input=False,
    dropout_ratio=0.0, in_channels=32, channels=32, num_classes=150,
    loss_decode=dict(type='CrossEntropyLoss'))
model['auxiliary_head'] = None
model['backbone'].update(with_fpn=False, out_indices=[3])
"""


def write_folder(folder: Path) -> Path:
    """A folder of transformers, with weights under names of its earlier versions."""
    torch.manual_seed(0)
    config = Dinov2WithRegistersConfig(hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
                                       patch_size=14, image_size=56, use_swiglu_ffn=True)
    network = Dinov2WithRegistersModel(config)
    for parameter in network.parameters():  # register tokens begin as zeros
        torch.nn.init.normal_(parameter, std=0.2)
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    """Head tuning of a pyramid and UPerNet on five images."""
    folder = tmp_path_factory.mktemp('frozen_vit')
    network = write_folder(folder / 'network')
    return write_config(folder / 'config.py', draw_data(folder, train=5, val=2),
                        'head_tuning_tiny', HEAD.replace('{folder}', str(network)))


@pytest.fixture(scope='module')
def whole(zygote, config, tmp_path_factory) -> Path:
    work_dir = tmp_path_factory.mktemp('whole') / 'run'
    text = zygote.train(config, '--work-dir', work_dir, '--seed', 5, *spread(1))
    assert 'dinov2_with_registers of transformers' in text
    return work_dir


@pytest.mark.slow
def test_a_run_is_resumed_exactly(zygote, config, whole, tmp_path):
    again = without_the_end(whole, tmp_path / 'again')
    assert 'resumed after iteration 4' in zygote.train(
        config, '--work-dir', again, '--auto-resume', *spread(1))
    assert_same_end(again, whole)


@pytest.mark.slow
def test_a_checkpoint_refers_to_the_folder(zygote, config, whole, tmp_path):
    saved = torch.load(whole / 'latest.pth', weights_only=True)
    assert {name.split('.')[1] for name in saved['state_dict'] if name.startswith('backbone.')} == {
        'up1', 'up2'}
    places = saved['meta']['backbone']['places']
    assert list(places['model.vit.encoder.layer.3.mlp.up_proj.weight']) == [
        'encoder.layer.3.mlp.weights_in.weight', 1, 2]
    merged = tmp_path / 'merged.pth'
    zygote.run('tools/merge_checkpoint.py', whole / 'latest.pth', merged)
    names = torch.load(merged, weights_only=True)['state_dict'].keys()
    assert {f'backbone.{name}' for name in places} < names
    scores = [_tested(zygote, config, path, tmp_path / path.stem)
              for path in (whole / 'iter_8.pth', merged)]
    assert scores[0] == scores[1]


def _tested(zygote, config: Path, checkpoint: Path, work_dir: Path) -> dict:
    zygote.run('tools/test.py', config, checkpoint, '--eval', 'mIoU', '--work-dir', work_dir)
    path, = work_dir.glob('*.json')
    return json.loads(path.read_text())['metric']


@pytest.mark.slow
def test_a_cache_changes_nothing(zygote, config, whole, tmp_path):
    text = zygote.train(config, '--work-dir', tmp_path / 'cached', '--seed', 5, *spread(1),
                        '--cfg-options', f'feature_cache.dir={tmp_path}/cache',
                        'feature_cache.views=7', 'feature_cache.seed=5', 'feature_cache.dtype=fp32')
    assert 'feature cache' in text
    expected = [entry['loss'] for entry in losses(whole).values()]
    assert [entry['loss'] for entry in losses(tmp_path / 'cached').values()] == pytest.approx(
        expected, rel=2e-3)
    listed = zygote.run('tools/cache.py', 'list', tmp_path / 'cache')
    assert 'blocks [0, 1, 2, 3] of 4, width 32' in listed


@pytest.mark.slow
def test_heads_of_a_sweep_share_the_network(zygote, config, tmp_path):
    linear = config.with_name('linear.py')
    linear.write_text(config.read_text() + LINEAR)
    zygote.run('tools/sweep.py', linear, '--work-dir', tmp_path / 'sweep', '--lr', '1e-3', '1e-2',
               '--layers', '1', '3', '--seed', 5)
    heads = json.loads((tmp_path / 'sweep/sweep.json').read_text())['heads']
    assert len(heads) == 4
    alone = tmp_path / 'alone'
    zygote.train(tmp_path / 'sweep/l1_lr0.001/config.py', '--work-dir', alone, '--seed', 5)
    assert [entry['loss'] for entry in losses(alone).values()] == [
        entry['loss'] for entry in losses(tmp_path / 'sweep/l1_lr0.001').values()]


@pytest.mark.slow
def test_two_ranks_train_the_same(zygote, config, whole, tmp_path):
    zygote.train(config, '--work-dir', tmp_path / 'two', '--seed', 5, *spread(2), ranks=2)
    expected = [entry['loss'] for entry in losses(whole).values()]
    assert [entry['loss'] for entry in losses(tmp_path / 'two').values()][:2] == pytest.approx(
        expected[:2], rel=1e-2)
    text = zygote.train(config, '--work-dir', tmp_path / 'sharded', *spread(2, 'fsdp2'), ranks=2,
                        code=1)
    assert "engine 'fsdp2' with a FrozenViT, which is frozen and not sharded" in text


@pytest.mark.slow
def test_the_doctor_knows_memory_and_weights(zygote, config, tmp_path):
    text = ' '.join(zygote.run('tools/doctor.py', config).split())
    assert 'healthy: no faults found' in text
    assert 'network: 100% of the values read' in text
    other = tmp_path / 'other'
    write_folder(other)
    save_file({'x': torch.zeros(1)}, other / 'model.safetensors')
    text = ' '.join(zygote.run('tools/doctor.py', config, '--cfg-options',
                               f'model.backbone.name={other}', code=1).split())
    assert 'does not fit the model: missing' in text
