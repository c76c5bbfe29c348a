"""What a page says of a run: kind, data, and the checkout that it was run from."""
import subprocess

import pytest
import torch
from helpers.data import SMALL_LINEAR, prepare, write_config

from mmseg_custom.checkpoint.provenance import WeightsSource, set_weights_source, sha256_of
from mmseg_custom.engine.config import load_config
from mmseg_custom.engine.run_folder import facts


def test_a_few_shot_run(tmp_path, shared_data):
    run = prepare(write_config(tmp_path / 'config.py', shared_data, extra=SMALL_LINEAR),
                  settings={'data.train.max_image_num': 2, 'model.backbone.freeze_vit': False,
                            'model.decode_head.num_convs': 1})
    assert facts.kind_of_run(run) == (
        'full tuning: backbone and FCNHead head are trained, few-shot (a selection of images)')
    found = facts.data(run)
    assert 'ADE20KDataset: 2 images of 150 classes' in found['Training data']
    chosen = run.data['train'].few_shot
    assert found['Images of the training data'] == str(chosen) and chosen.sha256 in str(chosen)
    recipe = facts.recipe(run, str(tmp_path / 'config.py'))
    assert len(recipe['SHA-256 of its copy here']) == 64 and 'lr=0.01' in recipe['Optimizer']
    assert recipe['Weights from'] == 'none: random values'


def test_file_of_a_frozen_backbone(tmp_path):
    (tmp_path / 'vit.safetensors').write_bytes(b'abc')
    model = torch.nn.Module()
    model.backbone = torch.nn.Linear(2, 2)
    assert facts.weights_of(model) == {}
    path = str(tmp_path / 'vit.safetensors')
    set_weights_source(model.backbone, WeightsSource(path, ()))
    assert facts.weights_of(model) == {'Backbone weights from': path}
    model.backbone.requires_grad_(False)
    digest = sha256_of(path)
    assert facts.weights_of(model)['Backbone weights from'].startswith(
        f'{path} (SHA-256 {digest}); checkpoints refer to it')


def test_commit_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, 'ROOT', str(tmp_path))
    assert facts.git_commit() == ''

    def git(*words: str) -> str:
        return subprocess.run(['git', '-C', tmp_path, '-c', 'user.name=a', '-c', 'user.email=a@b',
                               *words], check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / 'x').write_text('1')
    for words in (['init', '-q'], ['add', 'x'], ['commit', '-qm', 'x']):
        git(*words)
    assert facts.git_commit() == f'commit {git("rev-parse", "HEAD")}'
    (tmp_path / 'x').write_text('2')
    assert facts.git_commit().endswith(' with changes of its files')


@pytest.mark.parametrize('backbone, said', [
    (dict(freeze_vit=True, adapt=dict(type='lora', r=8)),
     'LoRA: adapters of rank 8 of qkv, proj, fc1, fc2 in all blocks, and the linear head are '
     'trained'),
    (dict(freeze_vit=False, adapt=dict(type='lora', targets=['qkv'], blocks=[1], use_dora=True)),
     'DoRA: adapters of rank 16 of qkv in blocks 1, and the linear head are trained'),
    (dict(freeze_vit=True, adapt=dict(type='lora'), unfreeze_pos_embed=True),
     'LoRA: adapters of rank 16 of qkv, proj, fc1, fc2 in all blocks, and the linear head are '
     'trained, and so is the position embedding'),
    (dict(freeze_vit=False, train_last=1),
     'last blocks: the last 1 block and the linear head are trained'),
    (dict(freeze_vit=False, train_last=2, train_norms=True),
     'last blocks: the last 2 blocks, all norms and layer scales and the linear head are trained')])
def test_what_of_a_backbone_is_trained(backbone, said, tmp_path, shared_data):
    cfg = load_config(str(write_config(tmp_path / 'config.py', shared_data, extra=SMALL_LINEAR)))
    cfg.model.backbone.update(backbone)
    assert facts.kind_of_run(prepare(cfg)) == said
