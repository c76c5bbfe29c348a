"""Exported segmentors: the labels of tools/test.py, without mmcv and mmseg."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import ROOT
from helpers.data import SMALL_LINEAR, write_config
from helpers.exported import (
    SIZES,
    draw_validation,
    export,
    labels_of_test,
    write_checkpoint,
)
from helpers.mutations import mutations
from PIL import Image

from mmseg_custom.deploy import Segmentor
from mmseg_custom.errors import InputError

SHARE = 0.99999  # of pixels whose labels are those of tools/test.py
LABEL = ROOT / 'tests/helpers/label_by_export.py'
ADAPT = dict(type='lora', r=8, alpha=16)
# Recipe -> settings, each with other parts of the network.
NETWORKS = [
    ('linear_probing_tiny', {}),
    ('linear_probing_tiny', {'model.backbone.frozen_dtype': 'int8'}),
    ('linear_probing_tiny', {'model.backbone.frozen_dtype': 'fp8'}),
    ('linear_probing_tiny', {'precision': 'fp32', 'model.backbone.depth': 8}),
    ('linear_probing_tiny', {'model.test_cfg.mode': 'whole'}),
    ('head_tuning_tiny', {}),
    ('head_tuning_tiny', {'head_precision': 'bf16'}),
    ('full_tuning_tiny', {}),
    ('last_blocks_tiny', {}),
    ('lora_tiny', {}),
    ('lora_tiny', {'model.backbone.adapt': dict(ADAPT, use_dora=True)}),
    ('lora_tiny', {'model.backbone.adapt': dict(ADAPT, targets=['qkv', 'mlp.fc1'], blocks=[1, 4]),
                   'model.backbone.frozen_dtype': 'int8'}),
    ('plain_mask_tiny', {}),
    ('eomt_tiny', {}),
    ('frozen_vit_tiny', {}),
    ('vit_adapter_tiny', {}),
]


def share_of_equal(mine: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    assert [each.shape for each in mine] == [each.shape for each in theirs]
    return float(np.mean(np.concatenate([(a == b).ravel() for a, b in zip(mine, theirs)])))


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """Folder with data, a config, a checkpoint of a small linear probe and its export, 'out'."""
    folder = tmp_path_factory.mktemp('exported')
    config = write_config(folder / 'small.py', draw_validation(folder), extra=SMALL_LINEAR)
    write_checkpoint(config, folder / 'small.pth')
    export(config, folder / 'small.pth', folder / 'out')
    return folder


@pytest.fixture
def copied(small, tmp_path):
    """Copy of the export that a test may change."""
    return Path(shutil.copytree(small / 'out', tmp_path / 'copied'))


def test_labels_without_mmcv_are_those_of_tests(small, bare_environment, tmp_path):
    paths, expected = labels_of_test(small / 'small.py', small / 'small.pth', tmp_path)
    bare_environment.python(LABEL, small / 'out', tmp_path / 'labels.npz', *paths)
    labels = list(np.load(tmp_path / 'labels.npz').values())
    assert [each.shape for each in labels] == list(SIZES)
    assert labels[0].dtype == np.uint8 and len(np.unique(np.concatenate(
        [each.ravel() for each in labels]))) > 10
    assert share_of_equal(labels, expected) >= SHARE
    picture = Image.open(tmp_path / 'labels.npz.png')
    assert picture.mode == 'P' and np.array_equal(np.asarray(picture), labels[0])


@pytest.mark.slow
@pytest.mark.parametrize('recipe, settings', NETWORKS)
def test_labels_of_all_kinds_of_networks(recipe, settings, tmp_path, bare_environment):
    data = draw_validation(tmp_path)
    config = write_config(tmp_path / f'{recipe}.py', data, recipe)
    checkpoint = tmp_path / 'checkpoint.pth'
    write_checkpoint(config, checkpoint, settings)
    export(config, checkpoint, tmp_path / 'out', settings)
    paths, expected = labels_of_test(config, checkpoint, tmp_path, settings)
    labels = Segmentor.from_pretrained(tmp_path / 'out', device='cpu')(paths)
    assert len(np.unique(labels[-1])) > 1
    assert share_of_equal(labels, expected) >= SHARE


@pytest.mark.slow
def test_views_of_several_scales_and_flips(small, tmp_path):
    config, checkpoint = small / 'small.py', small / 'small.pth'
    export(config, checkpoint, tmp_path / 'out', aug_test=True)
    paths, expected = labels_of_test(config, checkpoint, tmp_path, aug_test=True)
    segmentor = Segmentor.from_pretrained(tmp_path / 'out', device='cpu')
    assert len(segmentor.config['preprocessing']['views']) == 12
    assert share_of_equal(segmentor(paths), expected) >= SHARE


def test_what_an_exported_segmentor_knows(small):
    segmentor = Segmentor.from_pretrained(small / 'out', device='cpu')
    assert segmentor.classes[:2] == ['wall', 'building'] and segmentor.palette.shape == (150, 3)
    assert segmentor.first_label == 1 and segmentor.ignore_index == 255
    assert not any(parameter.requires_grad or parameter.is_meta
                   for parameter in segmentor.parameters())
    with pytest.raises(InputError, match='numbers of 0..149'):
        segmentor.colorize(np.full((2, 3), 150))


def change(folder: Path, **changes) -> None:
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_part(folder: Path, part: str, **changes) -> None:
    options = json.loads((folder / 'config.json').read_text())[part]
    change(folder, **{part: dict(options, **changes)})


@pytest.mark.parametrize('spoil, message', [
    (lambda folder: (folder / 'config.json').unlink(), 'holds no config.json'),
    (lambda folder: (folder / 'config.json').write_text('{"a": '), 'is no JSON file'),
    (lambda folder: (folder / 'config.json').write_text('{"model_type": "vit"}'),
     'is of another program'),
    (lambda folder: change(folder, format_version=2), 'reads up to 1: install a newer one'),
    (lambda folder: change(folder, backbone=dict(type='ResNet')), "backbone.type='ResNet'"),
    (lambda folder: change(folder, backbone=dict(type='InternViT6B', depht=3)),
     "unknown key in model.backbone: 'depht' (did you mean 'depth'?)"),
    (lambda folder: change_part(folder, 'backbone', depth=1 << 20), 'more than 10000 parameters'),
    (lambda folder: change_part(folder, 'backbone', embed_dim=10 ** 12),
     'backbone.embed_dim: 1000000000000, expected a number of at most 1048576'),
    (lambda folder: change_part(folder, 'decode_head', align_corners='no'),
     "decode_head.align_corners: 'no', expected true or false"),
    (lambda folder: change(folder, backbone=dict(type='FrozenViT', name='/etc')),
     "backbone.name='/etc': expected the name of a network of timm"),
    (lambda folder: change(folder, windows=dict(mode='slide', crop_size=[56, 56])),
     'test_cfg.stride=None'),
    (lambda folder: change(folder, classes=['wall']), '1 classes, 150 colours'),
    (lambda folder: (folder / 'model.safetensors').unlink(), 'model.safetensors is missing'),
    (lambda folder: (folder / 'model.safetensors').write_bytes(
        (folder / 'model.safetensors').read_bytes()[:-9]), 'is cut short or damaged'),
    (lambda folder: change_part(folder, 'decode_head', channels=16, in_channels=16),
     'model.safetensors: decode_head'),
])
def test_damaged_and_foreign_folders_are_refused(copied, spoil, message):
    spoil(copied)
    with pytest.raises(InputError) as error:
        Segmentor.from_pretrained(copied, device='cpu')
    assert message in str(error.value) and str(copied) in str(error.value)


def test_no_weights_are_read_that_the_config_names(copied):
    path = copied / 'config.json'
    content = json.loads(path.read_text())
    content['backbone']['pretrained'] = '/nowhere.pth'
    path.write_text(json.dumps(content))
    Segmentor.from_pretrained(copied, device='cpu')


def test_images_that_become_too_large_or_empty_are_refused(small):
    segmentor = Segmentor.from_pretrained(small / 'out', device='cpu')
    with pytest.raises(InputError, match='image of 1x3000 pixels.*cut it into parts'):
        segmentor(np.zeros((1, 3000, 3), np.uint8))
    with pytest.raises(InputError, match='0x0 pixels: expected some'):
        segmentor(Image.new('RGB', (0, 0)))


def test_names_and_devices_that_are_none(small):
    with pytest.raises(InputError, match='nowhere is not a folder'):
        Segmentor.from_pretrained('nowhere')
    with pytest.raises(InputError, match="revision='main' with the folder"):
        Segmentor.from_pretrained(small / 'out', revision='main')
    with pytest.raises(InputError, match="device='gpu': expected 'cpu'"):
        Segmentor.from_pretrained(small / 'out', device='gpu')


@pytest.mark.slow
def test_every_mutated_config_is_read_or_refused_in_one_line(copied):
    path = copied / 'config.json'
    content = json.loads(path.read_text())
    content['classes'], content['palette'] = content['classes'][:2], content['palette'][:2]
    for name, mutated in mutations(content):
        path.write_text(json.dumps(mutated))
        try:
            Segmentor.from_pretrained(copied, device='cpu')
        except InputError as error:
            assert '\n' not in str(error) and len(str(error)) < 2000, name
