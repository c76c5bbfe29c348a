"""Segmentors are built from configs of this package and of others."""
import pytest
import torch
from helpers.data import SMALL_LINEAR, prepare, write_config
from mmcv import Config

from mmseg_custom.checkpoint import save_checkpoint
from mmseg_custom.checkpoint.merge import merge
from mmseg_custom.doctor.weights import check_weights
from mmseg_custom.engine.build import build_model, build_network, init_heads
from mmseg_custom.engine.config import load_config
from mmseg_custom.errors import InputError

FAST_SCNN = dict(
    type='EncoderDecoder', pretrained=None,
    backbone=dict(type='FastSCNN', norm_cfg=dict(type='BN')),
    decode_head=dict(type='DepthwiseSeparableFCNHead', in_channels=128, channels=8, num_classes=2,
                     in_index=-1, concat_input=False, norm_cfg=dict(type='BN')))


@pytest.mark.parametrize('pretrained', [False, True])
def test_backbones_without_the_option_pretrained(pretrained):
    cfg = Config(dict(model=FAST_SCNN))
    assert build_network(cfg, pretrained=pretrained).decode_head.num_classes == 2
    assert 'pretrained' not in cfg.model.backbone


def test_several_auxiliary_heads_are_initialised():
    heads = [{**FAST_SCNN['decode_head'], 'in_index': index} for index in (-1, -2)]
    for head in heads:
        head.update(in_channels=128)
    model = build_network(Config(dict(model={**FAST_SCNN, 'auxiliary_head': heads})))
    init_heads(model)
    for head in model.auxiliary_head:
        assert head.conv_seg.bias.abs().sum() == 0 < head.conv_seg.weight.std() < 0.02


@pytest.fixture
def lora(tmp_path, shared_data) -> Config:
    """Config of a tiny linear head, with adapters."""
    cfg = load_config(str(write_config(tmp_path / 'config.py', shared_data, extra=SMALL_LINEAR)))
    cfg.work_dir = str(tmp_path / 'work')
    cfg.model.backbone.update(freeze_vit=True, adapt=dict(type='lora', r=2, use_dora=True))
    return cfg


def write(cfg: Config, path, value: float | None = None) -> str:
    """Writes a checkpoint of a config's network; adapters have one value if it is given."""
    model = build_network(cfg)
    for name, parameter in model.named_parameters():
        if value is not None and '.lora_B' in name:
            torch.nn.init.constant_(parameter, value)
    save_checkpoint(model, str(path), None, dict(iter=1))
    return str(path)


def test_adapters_of_a_run_come_from_its_checkpoint_or_else_from_a_folder(lora, tmp_path):
    folder = str(tmp_path / 'adapters')
    merge(write(lora, tmp_path / 'before.pth', 0.5), folder)
    held = write(lora, tmp_path / 'iter_1.pth', 0.25)
    without = Config(dict(model=dict(lora.model, backbone={
        key: value for key, value in lora.model.backbone.items() if key != 'adapt'})))
    probe = write(without, tmp_path / 'probe.pth')
    lora.model.backbone.adapt['pretrained'] = folder
    for load_from, expected in ((held, 0.25), (probe, 0.5), (None, 0.5)):
        lora.load_from = load_from
        model = build_model(prepare(lora))
        values = {float(p.mean()) for name, p in model.named_parameters() if '.lora_B' in name}
        assert values == {expected}
        assert not any(p.is_meta for p in model.parameters())


def test_the_doctor_compares_adapters(lora, tmp_path):
    path = write(lora, tmp_path / 'iter_1.pth')
    lora.load_from = path
    assert not [found for found in check_weights(lora)[0] if 'adapters' in str(found)]
    lora.model.backbone.adapt['r'] = 4
    found, = check_weights(lora)[0]
    assert 'holds adapters with r=2, the model has r=4' in str(found)
    lora.model.backbone.pop('adapt')
    with pytest.raises(InputError, match='the config has none'):
        build_model(prepare(lora))
