"""What a file of weights may hold; all else is refused in one line when it is opened."""
import pytest
import torch
from helpers.tiny_networks import Segmentor, tiny

from mmseg_custom.checkpoint import (
    load_backbone,
    load_optimizer,
    load_segmentor,
    newest_whole,
    open_checkpoint,
    read_checkpoint,
)
from mmseg_custom.checkpoint.content import check_meta
from mmseg_custom.checkpoint.convert import convert
from mmseg_custom.checkpoint.merge import merge
from mmseg_custom.errors import InputError


@pytest.mark.parametrize('content, message', [
    ({1: torch.ones(1)}, 'the name of a tensor is 1'),
    ({'a\nb': torch.ones(1)}, r"the name of a tensor is 'a\\nb'"),
    ({'a': torch.ones(1).expand(10**12)}, r'a tensor of shape \(1000000000000,\) in \d+ bytes'),
    ({'a': torch.ones(1).to_sparse()}, 'expected dense tensors'),
    ({'a': torch.ones(1), 'meta': range(10**12)}, 'is too long'),
    ({'patch_embed.proj.weight': torch.tensor(1.0)}, 'has shape .*: expected 4 dimensions'),
])
def test_contents_of_a_backbone(tmp_path, content, message):
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(InputError, match=message):
        load_backbone(tiny(), str(tmp_path / 'x.pth'))


@pytest.mark.parametrize('name, tensor', [
    ('blocks.0.attn.qkv.weight', torch.tensor(1.0)), ('pos_embed', torch.ones(17)),
    ('blocks.0.norm1.weight', torch.ones(32).to(torch.float8_e4m3fn)),
    ('blocks.0.norm1.weight', torch.ones(32, dtype=torch.uint16)),
])
def test_shapes_and_dtypes(tmp_path, name, tensor):
    torch.save({**tiny().state_dict(), name: tensor}, tmp_path / 'x.pth')
    for use in (lambda path: load_backbone(tiny(), path),
                lambda path: convert(path, str(tmp_path / 'y'), 'hf', num_heads=2)):
        with pytest.raises(InputError, match=name):
            use(str(tmp_path / 'x.pth'))


def test_a_counter_of_another_dtype(tmp_path):
    weights = Segmentor().state_dict()
    weights['decode_head.norm.num_batches_tracked'] = torch.ones(()).to(torch.float8_e5m2)
    torch.save(dict(state_dict=weights), tmp_path / 'x.pth')
    with pytest.raises(InputError, match='num_batches_tracked is float8_e5m2'):
        load_segmentor(Segmentor(), str(tmp_path / 'x.pth'))


@pytest.mark.parametrize('record', [
    dict(sha256='0' * 64), dict(path='x'),
    dict(path='x', sha256='y', bytes=1, pos_embed_tokens=17, dtype='float32', other_dtypes={}),
    dict(path='x', sha256='0' * 64, bytes=1, pos_embed_tokens=0, dtype='float32',
         other_dtypes={}),
    dict(path='x', sha256='0' * 64, bytes=1, pos_embed_tokens=18, dtype='float32',
         other_dtypes={}),
    dict(path='x', sha256='0' * 64, bytes=1, pos_embed_tokens=17, dtype='load', other_dtypes={}),
    *(dict(path='x', sha256='0' * 64, bytes=1, dtype='float32', other_dtypes={}, places=places)
      for places in (5, {'a': 'b'}, {'a': ['b', 2, 2]}, {'a': ['b', 0, 10**9]}, {'a': [1, 0, 1]}))
])
def test_an_incomplete_record_of_a_backbone(tmp_path, record):
    path = str(tmp_path / 'x.pth')
    torch.save(dict(meta=dict(backbone=record), state_dict=Segmentor().state_dict()), path)
    for use in (open_checkpoint, read_checkpoint, lambda path: merge(path, f'{path}.merged.pth')):
        with pytest.raises(InputError, match='meta.backbone'):
            use(path)


@pytest.mark.parametrize('optimizer', [
    5, [], {}, dict(state={}), dict(state={}, param_groups=[5]), dict(state=[], param_groups=[]),
    dict(state={0: 5}, param_groups=[dict(params=[0])]),
    dict(state={'x': {}}, param_groups=[dict(params=[0])]),
    dict(state={}, param_groups=[dict(params=[0, 0])]),
])
def test_what_is_no_optimizer(tmp_path, optimizer):
    """It is refused where a run is resumed, and of no account where the weights are loaded."""
    model, path = Segmentor(), str(tmp_path / 'iter_1.pth')
    torch.save(dict(meta=dict(iter=1), state_dict=model.state_dict(), optimizer=optimizer), path)
    with pytest.raises(InputError, match='optimizer'):
        load_optimizer(torch.optim.AdamW(model.parameters()), open_checkpoint(path), model)
    assert newest_whole(str(tmp_path)) is None
    load_segmentor(model, path)


def test_an_optimizer_that_is_none_and_a_deep_pickle(tmp_path):
    path = str(tmp_path / 'x.pth')
    torch.save(dict(state_dict=Segmentor().state_dict(), optimizer=None), path)
    assert open_checkpoint(path).optimizer is None
    deep = []
    for _ in range(200):
        deep = [deep]
    torch.save(dict(state_dict=Segmentor().state_dict(), meta=dict(deep=deep)), path)
    with pytest.raises(InputError, match='nested more than 100 times'):
        open_checkpoint(path)
    laughs = ['ha']
    for _ in range(50):
        laughs = [laughs, laughs]  # 2^50 values in 400 bytes
    torch.save(dict(state_dict=Segmentor().state_dict(), meta=dict(laughs=laughs)), path)
    with pytest.raises(InputError, match='more than its bytes can hold'):
        open_checkpoint(path)


@pytest.mark.parametrize('meta', [
    dict(CLASSES=5), dict(CLASSES='abc'), dict(PALETTE=5), dict(PALETTE=[1, 2, 3]),
    dict(PALETTE=[[1, 2], [1, 2, 3]]), dict(PALETTE='abc')])
def test_classes_and_colours(meta):
    with pytest.raises(InputError, match=f'x.pth: meta.{next(iter(meta))} is '):
        check_meta(meta, 'x.pth')
    for right in (dict(CLASSES=None, PALETTE=None), dict(CLASSES=('a',), PALETTE=[[1, 2, 3]]),
                  dict(PALETTE=torch.zeros(2, 3)), dict(PALETTE=[], backbone='resnet'), 5, None):
        check_meta(right, 'x.pth')


@pytest.mark.parametrize('meta', [dict(), dict(iter=-1), dict(iter=True), dict(iter='5'),
                                  dict(iter=1, seed='x'), dict(iter=1, run=5),
                                  dict(iter=1, hook_msgs=[])])
def test_progress_of_a_run(tmp_path, meta):
    torch.save(dict(meta=meta, state_dict=Segmentor().state_dict()), tmp_path / 'iter_1.pth')
    assert newest_whole(str(tmp_path)) is None
    load_segmentor(Segmentor(), str(tmp_path / 'iter_1.pth'))


def test_messages_have_one_line():
    with pytest.raises(InputError) as error:
        check_meta(dict(PALETTE=[torch.zeros(20, 20)]), 'x.pth')
    assert len(str(error.value).splitlines()) == 1
