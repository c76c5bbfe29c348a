import logging

import pytest
import torch
from helpers.adapters import adapted, features, save
from helpers.tiny_networks import Segmentor, same, write_flat
from mmcv.runner import load_checkpoint

from mmseg_custom.checkpoint import install_safe_loading
from mmseg_custom.checkpoint.merge import merge
from mmseg_custom.checkpoint.save import save_checkpoint
from mmseg_custom.checkpoint.segmentor import load_segmentor
from mmseg_custom.errors import InputError
from mmseg_custom.layers.lora import lora_layers, reset_norms

LORA = dict(type='lora', r=4, alpha=6)
install_safe_loading()


def by_mmcv(model: Segmentor, path: str) -> None:
    load_checkpoint(model, path)


@pytest.mark.parametrize('load', [load_segmentor, by_mmcv])
@pytest.mark.parametrize('pretrained', [True, False])
def test_a_checkpoint_comes_back(load, pretrained, tmp_path):
    flat = write_flat(tmp_path)
    model = adapted(flat if pretrained else None, use_dora=True)
    path = save(model, tmp_path)
    held = torch.load(path)['state_dict'].keys()
    assert any('lora' not in name and name.startswith('backbone') for name in held) != pretrained
    again = Segmentor(pretrained=flat, adapt=dict(LORA, use_dora=True)).float()
    load(again, path)
    assert same(again.state_dict(), model.state_dict())


@pytest.mark.parametrize('load, options, says', [
    (load_segmentor, {}, 'the config has none'),
    (load_segmentor, dict(adapt=dict(LORA, r=8)), 'with r=4, the model has r=8'),
    (by_mmcv, {}, 'the config has none'),
    (by_mmcv, dict(adapt=dict(LORA, alpha=8)), 'with alpha=6, the model has alpha=8')])
def test_other_adapters_are_refused(load, options, says, tmp_path):
    flat = write_flat(tmp_path)
    path, model = save(adapted(flat), tmp_path), Segmentor(pretrained=flat, **options)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match=says):
        load(model, path)
    assert same(model.state_dict(), before)


@pytest.mark.parametrize('load', [load_segmentor, by_mmcv])
@pytest.mark.parametrize('small', [True, False])
def test_a_linear_probe_into_a_model_with_adapters(load, small, tmp_path, caplog):
    """Adapters start at zero, and norms of DoRA are those of the weights that were loaded."""
    flat = write_flat(tmp_path)
    probe = Segmentor(pretrained=flat if small else None, freeze_vit=True)
    path = str(tmp_path / 'iter_1.pth')
    save_checkpoint(probe, path, None, dict(iter=1))
    model = Segmentor(adapt=dict(LORA, use_dora=True))
    with caplog.at_level(logging.INFO):
        load(model, path)
    said = [line for line in caplog.messages if 'holds no adapters: those of the model' in line]
    assert len(said) == 1
    torch.testing.assert_close(features(model), features(probe), rtol=1e-5, atol=1e-5)
    for _, layer in lora_layers(model):
        found = layer.lora_magnitude_vector.default.weight.clone()
        reset_norms(layer)
        torch.testing.assert_close(found, layer.lora_magnitude_vector.default.weight)


def test_a_probe_into_a_model_on_the_meta_device(tmp_path):
    probe = Segmentor(freeze_vit=True)
    save_checkpoint(probe, str(tmp_path / 'iter_1.pth'), None, dict(iter=1))
    with torch.device('meta'):
        model = Segmentor(adapt=dict(LORA, use_dora=True))
    load_segmentor(model, str(tmp_path / 'iter_1.pth'))
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    torch.testing.assert_close(features(model), features(probe), rtol=1e-5, atol=1e-5)


def test_a_merged_checkpoint_into_a_model_with_adapters(tmp_path):
    model = adapted(write_flat(tmp_path))
    merge(save(model, tmp_path), str(tmp_path / 'full.pth'))
    again = Segmentor(adapt=LORA).float()
    load_segmentor(again, str(tmp_path / 'full.pth'))
    torch.testing.assert_close(features(again), features(model), rtol=1e-5, atol=1e-5)


def test_another_backbone_is_refused(tmp_path):
    path = save(adapted(write_flat(tmp_path)), tmp_path)
    (tmp_path / 'other').mkdir()
    torch.manual_seed(1)
    other = write_flat(tmp_path / 'other')
    with pytest.raises(InputError, match='is another one .SHA-256'):
        load_segmentor(Segmentor(pretrained=other, adapt=LORA), path)


def test_other_networks_may_have_adapters_of_their_own(tmp_path):
    """Checkpoints of other backbones are read and loaded as they were, without a record."""
    model = torch.nn.ModuleDict(dict(backbone=torch.nn.ModuleDict(dict(
        lora_A=torch.nn.Linear(2, 2))), decode_head=torch.nn.Linear(2, 2)))
    path = str(tmp_path / 'other.pth')
    torch.save(dict(meta={}, state_dict=model.state_dict()), path)
    assert '.lora_' in ' '.join(torch.load(path)['state_dict'])
    load_checkpoint(model, path, strict=True)
    load_segmentor(model, path)


def test_adapters_are_no_pretrained_backbone(tmp_path):
    path = save(adapted(write_flat(tmp_path)), tmp_path)
    with pytest.raises(InputError, match='iter_1.pth holds adapters .*: merge them first .*tools/'):
        Segmentor(pretrained=path)
    merge(path, str(tmp_path / 'adapters'))
    with pytest.raises(InputError, match='model.backbone.adapt.pretrained, or merge it'):
        Segmentor(pretrained=str(tmp_path / 'adapters'))


@pytest.fixture
def exported(tmp_path):
    """(segmentor with adapters and norms, its folder of adapters, file of its backbone)."""
    flat = write_flat(tmp_path)
    model = adapted(flat, use_dora=True)
    merge(save(model, tmp_path), str(tmp_path / 'adapters'))
    return model, str(tmp_path / 'adapters'), flat


@pytest.mark.parametrize('rank, alpha', [(4, 6), (8, 3)])
def test_a_run_starts_from_a_folder(exported, rank, alpha):
    """Exactly, with its own rank and factor: also where those of the config are others."""
    model, folder, flat = exported
    adapt = dict(LORA, r=rank, alpha=alpha, use_dora=True, pretrained=folder)
    torch.manual_seed(0)
    again = Segmentor(pretrained=flat, adapt=adapt)
    torch.testing.assert_close(features(again), features(model), rtol=1e-5, atol=1e-5)
    if rank == 4:
        assert same(again.backbone.state_dict(), model.backbone.state_dict())
    else:  # B is zero where there is nothing to start from, and learns there
        qkv = again.backbone.blocks[0].attn.qkv
        assert qkv.lora_A.default.weight[4:].any(1).all() and not qkv.lora_B.default.weight[
            :, 4:].any()
    assert all(p.requires_grad for name, p in again.named_parameters() if 'lora_' in name)


def test_lora_becomes_dora(tmp_path):
    flat = write_flat(tmp_path)
    model = adapted(flat)
    merge(save(model, tmp_path), str(tmp_path / 'adapters'))
    again = Segmentor(pretrained=flat, adapt=dict(LORA, use_dora=True,
                                                  pretrained=str(tmp_path / 'adapters')))
    torch.testing.assert_close(features(again), features(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('adapt, says', [
    (dict(r=2), 'set model.backbone.adapt.r=4 or more'),
    (dict(targets=['qkv', 'fc1', 'fc2']), r'holds adapters of blocks.0.attn.proj, .*adapt.targets'),
    (dict(blocks=[0, 2]), r'holds adapters of blocks.1.attn.proj, .*adapt.blocks')])
def test_folders_that_do_not_fit(adapt, says, tmp_path):
    flat, folder = write_flat(tmp_path), str(tmp_path / 'adapters')
    merge(save(adapted(flat), tmp_path), folder)
    with pytest.raises(InputError, match=says):
        Segmentor(pretrained=flat, adapt=dict(LORA, pretrained=folder, **adapt))


def test_norms_need_a_place(tmp_path):
    flat, folder = write_flat(tmp_path), str(tmp_path / 'adapters')
    merge(save(adapted(flat, use_dora=True), tmp_path), folder)
    with pytest.raises(InputError, match='set model.backbone.adapt.use_dora=True'):
        Segmentor(pretrained=flat, adapt=dict(LORA, pretrained=folder))


def test_a_folder_of_another_backbone(tmp_path, caplog):
    flat, folder = write_flat(tmp_path), tmp_path / 'adapters'
    merge(save(adapted(flat), tmp_path), str(folder))
    adapt = dict(LORA, pretrained=str(folder))
    (tmp_path / 'other').mkdir()
    torch.manual_seed(1)
    with pytest.raises(InputError, match='adapters was trained on the backbone .*is another one'):
        Segmentor(pretrained=write_flat(tmp_path / 'other'), adapt=adapt)
    Segmentor(adapt=adapt)
    assert caplog.messages[-1].endswith('the weights here came from no file; they are right on the '
                                        'same weights alone')


def test_a_probe_and_a_folder_start_a_run_together(exported, tmp_path):
    """Weights and heads of a checkpoint, adapters of a folder."""
    model, folder, flat = exported
    probe = Segmentor(pretrained=flat, freeze_vit=True)
    save_checkpoint(probe, str(tmp_path / 'probe.pth'), None, dict(iter=1))
    merge(str(tmp_path / 'probe.pth'), str(tmp_path / 'full.pth'))
    with torch.device('meta'):
        again = Segmentor(adapt=dict(LORA, use_dora=True, pretrained=folder))
    load_segmentor(again, str(tmp_path / 'full.pth'))
    torch.testing.assert_close(features(again), features(model), rtol=1e-5, atol=1e-5)
