import os

import pytest
import torch
from helpers.tiny_networks import Segmentor, same, tiny, write_flat
from mmcv.runner import load_checkpoint
from safetensors.torch import load_file

from mmseg_custom.checkpoint.merge import merge, split
from mmseg_custom.checkpoint.save import save_checkpoint
from mmseg_custom.checkpoint.segmentor import load_segmentor
from mmseg_custom.errors import InputError


@pytest.fixture(params=[56, 126], ids=['same grid', 'resampled'])
def trained(request, tmp_path):
    """(segmentor, its small checkpoint, its backbone's file)."""
    flat = write_flat(tmp_path)
    model = Segmentor(pretrained=flat, freeze_vit=True, img_size=request.param)
    model.decode_head.conv_seg.weight.data.normal_()
    optimizer = torch.optim.AdamW(model.decode_head.parameters())
    model.decode_head.conv_seg.weight.sum().backward()
    optimizer.step()
    path = str(tmp_path / 'iter_1.pth')
    save_checkpoint(model, path, optimizer, dict(iter=1, CLASSES=['a']))
    return model, path, flat


def test_merged_it_loads_anywhere_and_needs_no_other_file(trained, tmp_path):
    model, path, flat = trained
    target = str(tmp_path / 'full.pth')
    merge(path, target)
    os.remove(flat)
    plain = torch.load(target, weights_only=True)
    assert plain['meta'] == dict(iter=1, CLASSES=['a'])
    assert plain['optimizer'].keys() == {'state', 'param_groups'}
    assert same(plain['state_dict'], model.state_dict())
    again = Segmentor(img_size=model.backbone.img_size)
    load_checkpoint(again, target, strict=True)
    assert same(again.state_dict(), model.state_dict())
    load_segmentor(Segmentor(img_size=model.backbone.img_size), target)


def test_merged_to_safetensors(trained, tmp_path):
    model, path, _ = trained
    target = str(tmp_path / 'full.safetensors')
    merge(path, target)
    assert same(load_file(target), model.state_dict())


def test_split_gives_back_what_was_merged(trained, tmp_path):
    model, path, flat = trained
    full, small = str(tmp_path / 'full.pth'), str(tmp_path / 'small.pth')
    merge(path, full)
    left_out, kept = split(full, small, flat)
    assert (left_out, kept) == (len(tiny().state_dict()), len(model.decode_head.state_dict()))
    before, after = torch.load(path), torch.load(small)
    assert before['meta'] == after['meta']
    assert same(after['state_dict'], before['state_dict'])
    assert os.path.getsize(small) < os.path.getsize(full) / 3


def test_what_differs_in_a_bit_stays_in_the_small_checkpoint(trained, tmp_path):
    model, path, flat = trained
    full, small = str(tmp_path / 'full.pth'), str(tmp_path / 'small.pth')
    merge(path, full)
    content = torch.load(full)
    content['state_dict']['backbone.pos_embed'][0, 3, 5] += 1
    torch.save(content, full)
    split(full, small, flat)
    assert 'backbone.pos_embed' in torch.load(small)['state_dict']
    again = Segmentor(img_size=model.backbone.img_size)
    load_segmentor(again, small)
    assert same(again.state_dict(), content['state_dict'])


def test_a_split_checkpoint_of_the_original_in_float32(tmp_path):
    flat = write_flat(tmp_path)
    model = Segmentor(pretrained=flat).float()
    full, small = str(tmp_path / 'full.pth'), str(tmp_path / 'small.pth')
    torch.save(dict(meta={}, state_dict=model.state_dict()), full)
    split(full, small, flat)
    again = Segmentor().float()
    load_segmentor(again, small)
    assert same(again.state_dict(), model.state_dict())


def test_what_else_a_file_holds_is_kept(trained, tmp_path):
    model, path, flat = trained
    full, small = str(tmp_path / 'full.pth'), str(tmp_path / 'small.pth')
    others = dict(ema=dict(x=torch.ones(2).to(torch.float8_e4m3fn)), model='InternViT',
                  module=dict(note='x'))  # entries that could hold the weights, and do not
    torch.save(dict(meta={}, state_dict=model.state_dict(), **others), full)
    split(full, small, flat)
    merge(small, str(tmp_path / 'again.pth'))
    for written in (torch.load(small), torch.load(tmp_path / 'again.pth')):
        assert written.keys() == {'meta', 'state_dict', *others}
        assert written['ema']['x'].dtype == torch.float8_e4m3fn
        assert written['ema']['x'].tolist() == [1, 1]
        assert written['model'] == 'InternViT' and written['module'] == dict(note='x')


def test_weights_under_another_key_are_written_once(trained, tmp_path):
    model, _, flat = trained
    full, small = str(tmp_path / 'full.pth'), str(tmp_path / 'small.pth')
    torch.save(dict(model=model.state_dict()), full)
    split(full, small, flat)
    assert torch.load(small).keys() == {'meta', 'state_dict'}


def test_another_backbone_is_refused(trained, tmp_path):
    _, path, _ = trained
    (tmp_path / 'other').mkdir()
    torch.manual_seed(1)
    with pytest.raises(InputError, match='is another one'):
        merge(path, str(tmp_path / 'full.pth'), write_flat(tmp_path / 'other'))
    assert not os.path.exists(tmp_path / 'full.pth')


def test_a_trained_backbone_cannot_be_split_off(trained, tmp_path):
    _, path, flat = trained
    full = str(tmp_path / 'full.pth')
    merge(path, full)
    content = torch.load(full)
    for tensor in content['state_dict'].values():
        tensor += 1
    torch.save(content, full)
    with pytest.raises(InputError, match='shares no tensor with'):
        split(full, str(tmp_path / 'small.pth'), flat)


def test_there_must_be_something_to_do(trained, tmp_path):
    _, path, flat = trained
    full, other = str(tmp_path / 'full.pth'), str(tmp_path / 'other.pth')
    merge(path, full)
    with pytest.raises(InputError, match='nothing to merge'):
        merge(full, other)
    with pytest.raises(InputError, match='nothing to split off'):
        split(path, other, flat)
    for action in (lambda: merge(path, full), lambda: split(full, path, flat)):
        with pytest.raises(InputError, match='exists: remove it first'):
            action()
