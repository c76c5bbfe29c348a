import logging
import os

import pytest
import torch
from helpers.logs import logged
from helpers.tiny_networks import Segmentor, same, tiny, write_flat
from safetensors.torch import save_file

from mmseg_custom.checkpoint.checkpoint import open_checkpoint
from mmseg_custom.checkpoint.provenance import weights_source_of
from mmseg_custom.checkpoint.save import save_checkpoint
from mmseg_custom.checkpoint.segmentor import load_segmentor, read_checkpoint
from mmseg_custom.errors import InputError


def on_meta(**options) -> Segmentor:
    with torch.device('meta'):
        return Segmentor(**options)


def write_classic(tmp_path, model, name='classic.pth', prefix='') -> str:
    path = str(tmp_path / name)
    torch.save(dict(meta=dict(iter=7), optimizer=dict(state={}), state_dict={
        prefix + key: value for key, value in model.state_dict().items()}), path)
    return path


def train_frozen(tmp_path, **options) -> tuple[Segmentor, str]:
    """A segmentor on a frozen backbone, and its checkpoint, which is a small one."""
    model = Segmentor(pretrained=write_flat(tmp_path), freeze_vit=True, **options)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    path = str(tmp_path / 'iter_1.pth')
    save_checkpoint(model, path, meta=dict(iter=1))
    assert not any(name.startswith('backbone.blocks') for name in torch.load(path)['state_dict'])
    return model, path


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('build', [Segmentor, on_meta])
def test_a_classic_checkpoint_brings_everything(build, prefix, tmp_path):
    original = Segmentor()
    path = write_classic(tmp_path, original, prefix=prefix)
    model = build()
    checkpoint = load_segmentor(model, path)
    assert checkpoint.meta == dict(iter=7) and checkpoint.optimizer == dict(state={})
    assert same(model.state_dict(), original.state_dict())
    assert weights_source_of(model.backbone) is None


@pytest.mark.parametrize('build', [Segmentor, on_meta])
@pytest.mark.parametrize('img_size', [56, 126])
def test_a_small_checkpoint_is_completed_from_the_backbones_file(build, img_size, tmp_path):
    original, path = train_frozen(tmp_path, img_size=img_size)
    model = build(img_size=img_size, freeze_vit=True)
    checkpoint = load_segmentor(model, path)
    assert checkpoint.meta['iter'] == 1 and checkpoint.optimizer is None
    assert same(model.state_dict(), original.state_dict())
    assert weights_source_of(model.backbone).path == str(tmp_path / 'flat.pth')


def test_the_next_checkpoint_of_a_resumed_run_is_small_too(tmp_path):
    original, path = train_frozen(tmp_path)
    model = on_meta(freeze_vit=True)
    load_segmentor(model, path)
    again = str(tmp_path / 'iter_2.pth')
    save_checkpoint(model, again, meta=dict(iter=2))
    assert os.path.getsize(again) == os.path.getsize(path)
    last = on_meta()
    load_segmentor(last, again)
    assert same(last.state_dict(), original.state_dict())


def test_a_backbone_that_is_there_is_not_read_again(tmp_path, monkeypatch):
    original, path = train_frozen(tmp_path)
    model = Segmentor(pretrained=str(tmp_path / 'flat.pth'), freeze_vit=True)
    before = [p.data_ptr() for p in model.backbone.parameters()]
    load_segmentor(model, path)
    assert [p.data_ptr() for p in model.backbone.parameters()] == before
    assert same(model.state_dict(), original.state_dict())


def test_a_backbone_that_was_trained_since_is_read_again(tmp_path):
    original, path = train_frozen(tmp_path)
    model = Segmentor(pretrained=str(tmp_path / 'flat.pth'))  # not frozen
    with torch.no_grad():
        model.backbone.cls_token.add_(1)
    load_segmentor(model, path)
    assert same(model.state_dict(), original.state_dict())


def test_a_trained_pyramid_and_position_embedding_are_in_the_checkpoint(tmp_path):
    options = dict(with_fpn=True, depth=4, out_indices=[0, 1, 2, 3], unfreeze_pos_embed=True)
    flat = str(tmp_path / 'deep.pth')
    torch.save(tiny(depth=4, out_indices=[3]).bfloat16().state_dict(), flat)
    original = Segmentor(pretrained=flat, freeze_vit=True, **options)
    with torch.no_grad():
        original.backbone.pos_embed.add_(1)
        original.backbone.up1[0].weight.add_(1)
    path = str(tmp_path / 'iter_1.pth')
    save_checkpoint(original, path)
    names = set(torch.load(path)['state_dict'])
    assert {'backbone.pos_embed', 'backbone.up1.0.weight'} <= names
    assert 'backbone.cls_token' not in names
    for build in (on_meta, Segmentor):
        model = build(freeze_vit=True, **options)
        load_segmentor(model, path)
        assert same(model.state_dict(), original.state_dict())


def test_rounding_is_that_of_the_training(tmp_path):
    """float16 file, bfloat16 training, float32 testing: the values are those of bfloat16."""
    flat = str(tmp_path / 'half.pth')
    torch.save(tiny().half().state_dict(), flat)
    original = Segmentor(pretrained=flat, freeze_vit=True)
    path = str(tmp_path / 'iter_1.pth')
    save_checkpoint(original, path)
    model = Segmentor().float()
    load_segmentor(model, path)
    assert all(torch.equal(a, b.float()) for a, b in zip(model.backbone.parameters(),
                                                         original.backbone.parameters()))


@pytest.mark.parametrize('where', ['beside', 'pretrained', 'given'])
def test_a_backbone_that_moved_is_found(where, tmp_path, monkeypatch):
    original, path = train_frozen(tmp_path)
    for folder in ('run', 'elsewhere', 'pretrained'):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    os.rename(path, 'run/iter_1.pth')
    target = dict(beside='run/flat.pth', pretrained='pretrained/flat.pth',
                  given='elsewhere/renamed.pth')[where]
    os.rename('flat.pth', target)
    model = on_meta()
    load_segmentor(model, 'run/iter_1.pth', backbone=target if where == 'given' else None)
    assert same(model.state_dict(), original.state_dict())


def test_a_backbone_that_is_gone_is_named(tmp_path):
    _, path = train_frozen(tmp_path)
    os.remove(tmp_path / 'flat.pth')
    with pytest.raises(InputError, match=r'iter_1.pth holds what was trained on .*flat.pth'):
        load_segmentor(on_meta(), path)


def test_another_backbone_is_refused(tmp_path):
    _, path = train_frozen(tmp_path)
    (tmp_path / 'other').mkdir()
    torch.manual_seed(1)
    other = write_flat(tmp_path / 'other')
    with pytest.raises(InputError, match=r'was trained on .*SHA-256.*other/flat.pth is another'):
        load_segmentor(on_meta(), path, backbone=other)
    with pytest.raises(InputError, match='is another one'):  # the one that the config names
        load_segmentor(Segmentor(pretrained=other), path)
    with pytest.raises(InputError, match='is another one'):
        read_checkpoint(path, backbone=other)


def test_an_open_checkpoint_loads_again_though_its_file_is_gone(tmp_path):
    original, path = train_frozen(tmp_path)
    checkpoint = open_checkpoint(path)
    os.remove(path)
    assert not checkpoint.holds_backbone and checkpoint.weights.keys() == {
        f'decode_head.{name}' for name in original.decode_head.state_dict()}
    for model, leave_out in ((Segmentor(), ['decode_head.']), (on_meta(), [])):
        assert load_segmentor(model, checkpoint, leave_out=leave_out) is checkpoint
    assert same(model.state_dict(), original.state_dict())


@pytest.mark.parametrize('build', [Segmentor, on_meta])
def test_models_of_one_open_checkpoint_share_nothing(build, tmp_path):
    original = Segmentor()
    checkpoint = open_checkpoint(write_classic(tmp_path, original))
    first = on_meta()
    load_segmentor(first, checkpoint)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.fill_(7)
    second = build()
    assert load_segmentor(second, checkpoint) is checkpoint
    assert same(second.state_dict(), original.state_dict())
    assert all((parameter == 7).all() for parameter in first.parameters())


def test_an_open_checkpoint_whose_tensors_are_taken_needs_its_file(tmp_path):
    path = write_classic(tmp_path, Segmentor())
    checkpoint = open_checkpoint(path)
    load_segmentor(on_meta(), checkpoint)
    os.remove(path)
    with pytest.raises(InputError, match='classic.pth does not exist'):
        load_segmentor(Segmentor(), checkpoint)


def test_safetensors_of_a_segmentor_load(tmp_path):
    original = Segmentor()
    path = str(tmp_path / 'x.safetensors')
    save_file(original.state_dict(), path)
    model = on_meta()
    checkpoint = load_segmentor(model, path)
    assert checkpoint.meta == checkpoint.others == {} and checkpoint.optimizer is None
    assert same(model.state_dict(), original.state_dict())


def test_another_number_of_classes(tmp_path):
    path = write_classic(tmp_path, Segmentor(classes=5))
    model = Segmentor(classes=3)
    with pytest.raises(InputError, match=r'decode_head.conv_seg.weight has shape \(5, 32, 1, 1\)'):
        load_segmentor(model, path)
    before = model.decode_head.conv_seg.weight.clone()
    load_segmentor(model, path, leave_out=['decode_head.conv_seg.'])
    assert torch.equal(model.decode_head.conv_seg.weight, before)
    with pytest.raises(InputError, match="is called 'decode_heat'"):
        load_segmentor(model, path, leave_out=['decode_heat'])
    with pytest.raises(InputError, match='conv_seg.weight was left out, but the model was built'):
        load_segmentor(on_meta(), path, leave_out=['decode_head.conv_seg.'])


def test_a_head_that_one_side_lacks_may_be_left_out(tmp_path):
    original = Segmentor()
    original.auxiliary_head = torch.nn.Linear(1, 1)
    path = write_classic(tmp_path, original)
    with pytest.raises(InputError, match='unexpected: auxiliary_head.bias'):
        load_segmentor(Segmentor(), path)
    load_segmentor(Segmentor(), path, leave_out=['auxiliary_head.'])
    path = write_classic(tmp_path, Segmentor(), name='without.pth')
    with pytest.raises(InputError, match='missing: auxiliary_head.bias'):
        load_segmentor(original, path)
    load_segmentor(original, path, leave_out=['auxiliary_head.'])


def test_counters_that_old_torch_did_not_write_may_be_missing(tmp_path):
    path = write_classic(tmp_path, Segmentor())
    checkpoint = torch.load(path)
    del checkpoint['state_dict']['decode_head.norm.num_batches_tracked']
    torch.save(checkpoint, path)
    model = on_meta()
    load_segmentor(model, path)
    assert model.decode_head.norm.num_batches_tracked == 0


@pytest.mark.parametrize('save, says', [
    (lambda path: torch.save(tiny().state_dict(), path), 'give it as model.backbone.pretrained'),
    (lambda path: torch.save({'conv1.weight': torch.ones(1)}, path),
     'give the checkpoint of a segmentor'),
])
def test_what_is_no_segmentor_is_refused(save, says, tmp_path):
    path = str(tmp_path / 'x.pth')
    save(path)
    with pytest.raises(InputError, match=f'x.pth is no checkpoint of a segmentor.*{says}'):
        load_segmentor(Segmentor(), path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match='is a folder'):
        load_segmentor(Segmentor(), str(tmp_path))


def test_another_architecture_is_refused_by_its_options(tmp_path):
    path = write_classic(tmp_path, Segmentor())
    with pytest.raises(InputError, match='with depth=3, the model has depth=4'):
        load_segmentor(on_meta(depth=4), path)


def test_nan_is_found_when_asked_for(tmp_path):
    original = Segmentor()
    original.decode_head.norm.running_var[3] = float('nan')
    path = write_classic(tmp_path, original)
    load_segmentor(on_meta(), path)
    with pytest.raises(InputError, match='decode_head.norm.running_var holds NaN'):
        load_segmentor(on_meta(), path, check_finite=True)


def test_reading_makes_a_small_checkpoint_whole(tmp_path):
    original, path = train_frozen(tmp_path, img_size=126)
    whole = read_checkpoint(path)
    assert set(whole['state_dict']) == set(original.state_dict())
    model = Segmentor(img_size=126)
    model.load_state_dict(whole['state_dict'], strict=True)
    assert same(model.state_dict(), original.state_dict())


def test_what_is_left_aside_of_the_backbones_file_is_logged_once(tmp_path):
    _, path = train_frozen(tmp_path)
    with logged('test_segmentor') as lines:
        load_segmentor(on_meta(), path, logger=logging.getLogger('test_segmentor'))
    assert len(lines) == 1 and 'and the backbone' in lines[0]
