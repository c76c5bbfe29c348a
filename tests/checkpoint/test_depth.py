"""Files with more blocks than the network: the last ones are left aside, with one line."""
import logging

import pytest
import torch
from helpers.logs import logged
from helpers.tiny_networks import Segmentor, same, tiny
from helpers.weight_forms import FORMS, write_form

from mmseg_custom.checkpoint.depth import count_blocks
from mmseg_custom.checkpoint.load import load_backbone
from mmseg_custom.checkpoint.merge import merge, split
from mmseg_custom.checkpoint.provenance import weights_source_of
from mmseg_custom.checkpoint.save import save_checkpoint
from mmseg_custom.checkpoint.segmentor import load_segmentor, read_checkpoint
from mmseg_custom.errors import InputError

DEEP = dict(depth=5, out_indices=[2])  # of the networks here, which have 3 blocks


def deep_weights() -> dict:
    """Weights of 5 blocks in bfloat16, like those of a released file."""
    return tiny(**DEEP).bfloat16().state_dict()


def first_three(weights: dict) -> dict:
    return {name: tensor for name, tensor in weights.items()
            if not name.startswith(('blocks.3.', 'blocks.4.'))}


@pytest.mark.parametrize('form', FORMS)
def test_whole_blocks_at_the_end_are_left_aside_with_one_line(form, tmp_path):
    weights = deep_weights()
    path = write_form(form, weights, tmp_path)
    model = tiny(img_size=126)
    with logged('test_depth') as lines:
        load_backbone(model, path, dtype=torch.bfloat16, logger=logging.getLogger('test_depth'))
    said = [line for line in lines if 'blocks.3 to blocks.4 are left aside' in line]
    assert len(said) == 1 and path in said[0] and 'holds 5 blocks' in said[0]
    assert 'first 3 (model.backbone.depth=3)' in said[0]
    loaded, wanted = model.state_dict(), first_three(weights)
    assert loaded.pop('pos_embed').shape == (1, 82, 32)  # 4x4 patches in the file, 9x9 here
    wanted.pop('pos_embed')
    assert same(loaded, wanted)


def test_nothing_of_them_is_read(tmp_path):
    weights = deep_weights()
    weights['blocks.4.mlp.fc1.weight'].fill_(float('nan'))
    path = write_form('flat', weights, tmp_path)
    load_backbone(tiny(), path, check_finite=True)
    with pytest.raises(InputError, match='blocks.4.mlp.fc1.weight holds NaN'):
        load_backbone(tiny(**DEEP), path, check_finite=True)


def test_feature_maps_are_those_of_the_deeper_network(tmp_path):
    """As of V1-0: a network of 48 blocks that is read up to block 44, and one of 45."""
    path = write_form('flat', deep_weights(), tmp_path)
    images = torch.randn(2, 3, 70, 56)
    for options in (dict(), dict(with_fpn=True, out_indices=[0, 1, 2, 3])):
        depth = max(options.get('out_indices', [2])) + 1
        torch.manual_seed(0)
        deep = tiny(**{**DEEP, **options}, pretrained=path)
        torch.manual_seed(0)
        short = tiny(**options, depth=depth, pretrained=path)
        for theirs, ours in zip(deep(images), short(images), strict=True):
            assert torch.equal(theirs, ours)


def cut(weights: dict, *names: str) -> dict:
    return {name: tensor for name, tensor in weights.items() if name not in names}


NOT_WHOLE = {
    'a tensor is missing': (lambda w: cut(w, 'blocks.4.norm2.weight'),
                            'missing: blocks.4.norm2.weight'),
    'a tensor is left over': (lambda w: {**w, 'blocks.3.attn.qkv.bias': torch.ones(96)},
                              'unexpected: blocks.3.attn.qkv.bias'),
    'another shape': (lambda w: {**w, 'blocks.3.mlp.fc1.bias': torch.ones(64)},
                      'of another shape: blocks.3.mlp.fc1.bias'),
    'a block is missing': (lambda w: {n.replace('blocks.4.', 'blocks.7.'): t
                                      for n, t in w.items()}, r'missing: blocks.4.*\(nearest'),
    'another part': (lambda w: {**w, 'head.weight': torch.ones(3, 32)}, 'unexpected: head.weight'),
    'a hole within': (lambda w: cut(w, 'blocks.1.norm2.weight'), 'missing: blocks.1.norm2.weight'),
}


@pytest.mark.parametrize('case', NOT_WHOLE)
def test_anything_else_is_refused_by_name(case, tmp_path):
    change, says = NOT_WHOLE[case]
    path = write_form('flat', change(deep_weights()), tmp_path)
    with pytest.raises(InputError, match=says) as caught:
        load_backbone(tiny(), path)
    assert '\n' not in str(caught.value) and path in str(caught.value)


def test_another_width_is_not_a_matter_of_depth(tmp_path):
    torch.save(tiny(embed_dim=64, **DEEP).state_dict(), tmp_path / 'wide.pth')
    with pytest.raises(InputError, match='embed_dim=64, depth=5, the model has embed_dim=32'):
        load_backbone(tiny(), str(tmp_path / 'wide.pth'))


# Checkpoints of a frozen backbone, which refer to such a file.


def train_frozen(tmp_path, **options) -> tuple[Segmentor, str, str]:
    """A segmentor on the first blocks of a file, its checkpoint, and the file."""
    file = write_form('flat', deep_weights(), tmp_path)
    model = Segmentor(pretrained=file, **options or dict(freeze_vit=True))
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    path = str(tmp_path / 'iter_1.pth')
    save_checkpoint(model, path, meta=dict(iter=1))
    return model, path, file


@pytest.mark.parametrize('options', [dict(freeze_vit=True), dict(train_last=1),
                                     dict(adapt=dict(type='lora', r=4))])
def test_a_checkpoint_says_how_many_blocks_it_takes(options, tmp_path):
    original, path, file = train_frozen(tmp_path, **options)
    content = torch.load(path)
    assert content['meta']['backbone']['left_out'] == ['blocks.3', 'blocks.4']
    assert 'backbone.blocks.0.attn.qkv.weight' not in content['state_dict']
    with torch.device('meta'):
        model = Segmentor(**options)
    load_segmentor(model, path)
    assert same(model.state_dict(), original.state_dict())
    source = weights_source_of(model.backbone)  # of the next checkpoint, too
    assert source.left_out == ('blocks.3', 'blocks.4')
    read = read_checkpoint(path)['state_dict']  # for mmcv, which knows no model
    assert read.keys() == original.state_dict().keys()
    assert read._metadata['backbone']['weights_left_out'] == ['blocks.3', 'blocks.4']
    with pytest.raises(InputError, match='depth=3, the model has depth=5'):
        load_segmentor(Segmentor(**DEEP, **options), path)


def test_merging_and_splitting_keep_the_number_of_blocks(tmp_path):
    original, path, file = train_frozen(tmp_path)
    full, small = str(tmp_path / 'full.pth'), str(tmp_path / 'small.pth')
    merge(path, full)
    assert count_blocks(name.removeprefix('backbone.')
                        for name in torch.load(full)['state_dict']) == 3
    split(full, small, file)
    assert torch.load(small)['meta']['backbone'] == torch.load(path)['meta']['backbone']
    model = Segmentor(freeze_vit=True)
    load_segmentor(model, small)
    assert same(model.state_dict(), original.state_dict())
