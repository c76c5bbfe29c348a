"""One image a process and the batch norms that it leaves a single value."""
import pytest
import torch
from helpers.data import prepare, write_config
from helpers.runs import SMALL
from helpers.tiny_networks import segmentor_config
from mmcv import Config, ConfigDict

from mmseg_custom.engine.batch import Batch
from mmseg_custom.engine.batch_norm import check_batch_norm, find_single_value
from mmseg_custom.engine.build import build_network
from mmseg_custom.engine.preemption import Preemption
from mmseg_custom.engine.train import train
from mmseg_custom.errors import InputError

SYNCED, PLAIN, GROUPS = dict(type='SyncBN'), dict(type='BN'), dict(type='GN', num_groups=2)
POOLED = 'decode_head.psp_modules.0.1.bn'


def config(head: str = 'upernet', norm: dict = SYNCED, side: int = 56, **changes) -> Config:
    heads = dict(norm_cfg=norm) if head == 'upernet' else dict(with_norm=True)
    model = segmentor_config(head, 'EncoderDecoder', heads)
    model.decode_head.update(changes)
    return Config(dict(model=model, data=dict(train=dict(pipeline=[
        dict(type='Pad', size=(side, side))]))))



@pytest.mark.parametrize('cfg, ranks, found', [
    (config(), 1, POOLED),
    (config(), 2, None),  # SyncBN counts the values of both
    (config(norm=PLAIN), 2, POOLED),
    (config(norm=GROUPS), 1, None),
    (config(pool_scales=(2, 3)), 1, None),
    (config('linear'), 1, None),
    (config('linear', side=14), 1, 'decode_head.norm'),  # an image of one patch
    (config(pool_scales=(2, 3), side=28), 1, 'decode_head.bottleneck.bn'),
])
def test_finds_the_norm_that_has_a_single_value(cfg, ranks, found):
    assert find_single_value(cfg, ranks) == found


@pytest.mark.parametrize('head, found', [
    (dict(type='PSPHead'), 'decode_head.psp_modules.0.1.bn'),
    (dict(type='ASPPHead', dilations=(1, 2)), 'decode_head.image_pool.1.bn'),
    (dict(type='FCNHead', num_convs=1), None)])
def test_heads_of_mmseg(head, found):
    cfg = config()
    cfg.model.decode_head = ConfigDict(
        in_channels=32, in_index=3, channels=8, num_classes=5, norm_cfg=SYNCED,
        align_corners=False, **head)
    assert find_single_value(cfg, ranks=1) == found


def test_torch_refuses_what_is_found_and_nothing_else():
    for cfg in (config(), config(pool_scales=(2, 3))):
        model = build_network(cfg).float().train()
        batch = torch.randn(1, 3, 56, 56), [{}], torch.zeros(1, 1, 56, 56).long()
        if find_single_value(cfg, ranks=1):
            with pytest.raises(ValueError, match='Expected more than 1 value per channel'):
                model.forward_train(*batch)
        else:
            model.forward_train(*batch)


def test_looking_leaves_the_random_numbers():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    find_single_value(config(), ranks=1)
    assert torch.rand(1) == expected


@pytest.mark.parametrize('norm, ranks, way_out', [
    (SYNCED, 1, 'start two processes or more, whose SyncBN counts the images of all'),
    (PLAIN, 1, "start two processes or more with norm_cfg type='SyncBN'"),
    (PLAIN, 4, "set type='SyncBN' in the norm_cfg of its head")])
def test_one_line_with_the_way_out(norm, ranks, way_out):
    check_batch_norm(config(norm=norm), Batch(2, ranks))
    with pytest.raises(InputError, match=f'one image a process .*{POOLED} .*two images a process, '
                                         f'or {way_out}'):
        check_batch_norm(config(norm=norm), Batch(1, ranks, 8))


def test_training_is_refused_before_weights_are_read(shared_data, tmp_path, monkeypatch):
    monkeypatch.setattr(Preemption, 'listen', lambda self: None)
    path = write_config(tmp_path / 'config.py', shared_data, 'head_tuning_tiny', SMALL)
    run = prepare(path, settings={'data.samples_per_gpu': 1, 'data.train_dataloader': {},
                                  'model.backbone.pretrained': 'not/there.pth'},
                  work_dir=str(tmp_path), no_validate=True)
    with pytest.raises(InputError, match='one image a process'):
        train(run)
