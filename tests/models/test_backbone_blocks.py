"""Queries in the last blocks of the backbone, PlainMaskHead(blocks='backbone')."""
import copy

import pytest
import torch
from helpers.tiny_networks import FAMILIES, segmentor_config
from mmseg.models import build_segmentor
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.errors import InputError
from mmseg_custom.layers.plain_mask import pixel_scores
from mmseg_custom.models import InternViTSegmentor
from mmseg_custom.optim.layer_decay import depth_of

QUERIES, D = 7, 32
LORA = dict(type='lora', r=4)


def config(head: dict | None = None, **backbone):
    """Config of a tiny segmentor: queries in the last two of four blocks."""
    found = segmentor_config(**{**dict(img_size=56), **backbone})
    found.decode_head = {**dict(
        type='PlainMaskHead', blocks='backbone', in_channels=D, channels=16, num_classes=5,
        num_queries=QUERIES, num_blocks=2, num_upscalings=1, num_points=64), **(head or {})}
    return found


def build(head: dict | None = None, **backbone) -> InternViTSegmentor:
    torch.manual_seed(0)
    model = build_segmentor(config(head, **backbone)).float()
    for parameter in model.backbone.parameters():  # what queries and patches exchange is seen
        nn.init.normal_(parameter.data, std=0.3)
    return model


@pytest.fixture(scope='module')
def images() -> Tensor:
    return torch.randn(2, 3, 56, 70, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope='module')
def batch(images) -> dict:
    labels = torch.randint(5, (2, 1, 56, 70), generator=torch.Generator().manual_seed(1))
    return dict(img=images, gt_semantic_seg=labels, img_metas=[dict(filename='a')] * 2)


def block_by_hand(block: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """A block in the formulas of its papers; mask (B, N, N) of what attends to what."""
    def scale(layer: nn.Module, y: Tensor) -> Tensor:
        return y * layer.gamma

    attn = block.attn
    q, k, v = F.linear(block.norm1(x), attn.qkv.weight, attn.qkv.bias).chunk(3, -1)
    q, k, v = (y.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
               for y in (attn.q_norm(q), attn.k_norm(k), v))
    weights = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    if mask is not None:
        weights = weights.masked_fill(~mask[:, None], -torch.inf)
    x = x + scale(block.ls1, attn.proj((weights.softmax(-1) @ v).transpose(1, 2).flatten(2)))
    hidden = F.gelu(block.mlp.fc1(block.norm2(x)))
    return x + scale(block.ls2, block.mlp.fc2(hidden))


def predictions_by_hand(model: InternViTSegmentor, images: Tensor, masked: bool
                        ) -> list[tuple[Tensor, Tensor]]:
    """Queries in front of all tokens, as in the paper, in blocks that are run by themselves."""
    backbone, head = model.backbone, model.decode_head
    x, (h, w) = backbone._embed(images)
    found = []

    def predict() -> None:
        tokens = head.predictor.norm(head.blocks.project(x))
        queries, patches = tokens[:, :QUERIES], tokens[:, QUERIES + 1:]
        pixels = head.predictor.upscale(patches.transpose(1, 2).unflatten(2, (h, w)))
        found.append((torch.einsum('bqc,bchw->bqhw', head.predictor.mask_head(queries), pixels),
                      head.predictor.class_head(queries)))

    for i, block in enumerate(backbone.blocks):
        mask = None
        if i == 2:
            x = torch.cat([head.queries.expand(2, -1, -1), x], 1)
        if i >= 2 and masked:
            predict()
            inside = F.interpolate(found[-1][0], (h, w), mode='bilinear').flatten(2) > 0
            mask = torch.ones(2, x.shape[1], x.shape[1], dtype=torch.bool)
            mask[:, :QUERIES, QUERIES + 1:] = inside
        x = block_by_hand(block, x, mask)
    predict()
    return found


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('channels', [D, 16])
def test_the_same_as_a_direct_computation(images, family, channels, masked):
    model = build(dict(channels=channels), **FAMILIES[family]).eval()
    expected = predictions_by_hand(model, images, masked)
    found = model.decode_head._predictions(model.extract_feat(images), of_all_blocks=masked)
    assert len(found) == len(expected) == (3 if masked else 1)
    for (masks, classes), (of_masks, of_classes) in zip(found, expected):
        assert masks.shape == (2, QUERIES, 8, 10) and classes.shape == (2, QUERIES, 6)
        torch.testing.assert_close(masks, of_masks, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(classes, of_classes, rtol=1e-5, atol=1e-5)
    scores = model.encode_decode(images, None)
    if not masked:
        assert torch.equal(model.decode_head(model.extract_feat(images)),
                           pixel_scores(*found[-1]))
        assert scores.shape == (2, 5, 56, 70)


def test_masks_are_annealed_away(images):
    model = build().eval()
    head, inputs = model.decode_head, model.extract_feat(images)
    last = {}
    for progress in (0, 1):
        head.anneal(progress)
        last[progress] = head._predictions(inputs, of_all_blocks=True)[-1][0]
    assert torch.equal(last[1], head._predictions(inputs, of_all_blocks=False)[0][0])
    assert not torch.allclose(last[0], last[1])


def test_names_of_weights_are_those_of_the_backbone():
    model = build()
    names = list(model.state_dict())
    plain = build_segmentor(segmentor_config(img_size=56))
    assert [n for n in names if n.startswith('backbone.')] == [
        n for n in plain.state_dict() if n.startswith('backbone.')]
    of_head = [n.removeprefix('decode_head.') for n in names if n.startswith('decode_head.')]
    assert {n.split('.')[0] for n in of_head} == {
        'queries', 'attn_mask_probs', 'blocks', 'predictor'}
    assert [n for n in of_head if n.startswith('blocks.')] == [
        f'blocks.project.{i}.{kind}' for i in (0, 1) for kind in ('weight', 'bias')]
    parameters = dict(model.named_parameters())
    assert len({id(p) for p in parameters.values()}) == len(parameters)
    assert {depth_of(n, 4) for n in parameters if n.startswith('decode_head.')} == {5}
    assert list(parameters)[-1].startswith('decode_head.')
    same_width = build(dict(channels=D)).state_dict()
    assert not any(n.startswith('decode_head.blocks') for n in same_width)


def test_a_copy_runs_its_own_blocks(images):
    model = build().eval()
    other = copy.deepcopy(model)
    expected = model.encode_decode(images, None)
    for parameter in model.backbone.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(other.encode_decode(images, None), expected)
    assert not torch.equal(model.encode_decode(images, None), expected)


def step(model: InternViTSegmentor, batch: dict) -> dict[str, Tensor]:
    """The loss and the gradients of a training step."""
    model.train()
    torch.manual_seed(1)
    loss = model.train_step(batch, None)['loss']
    loss.backward()
    return dict(loss=loss.detach(),
                **{name: p.grad for name, p in model.named_parameters() if p.requires_grad})


@pytest.mark.parametrize('backbone', [
    dict(), dict(train_last=2), dict(train_last=3), dict(adapt=LORA),
    dict(adapt=dict(LORA, blocks=[1, 3])), dict(train_last=1, train_norms=True),
    dict(train_last=2, frozen_dtype='int8')], ids=str)
def test_all_that_is_trained_gets_gradients(batch, backbone):
    torch.manual_seed(0)
    model = build_segmentor(config(**backbone))
    apply_precision(model, torch.bfloat16)
    found = step(model, batch)
    assert found.pop('loss').isfinite()
    assert all(g is not None and g.isfinite().all() and g.dtype == torch.float32
               for g in found.values())
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert all(p.grad is None for p in frozen) and bool(frozen) == bool(backbone)


@pytest.mark.parametrize('backbone', [dict(drop_path_rate=0.3), dict(train_last=2)], ids=str)
def test_recomputed_blocks_give_the_same_bits(batch, backbone):
    kept = step(build(with_cp=False, **backbone), batch)
    for options in (dict(every_kth=1), dict(every_kth=2), dict(every_kth=1, first=1)):
        model = build(with_cp=True, **backbone)
        model.backbone.set_checkpointing(**options)
        found = step(model, batch)
        assert all(torch.equal(found[name], value) for name, value in kept.items()), options


def test_goes_on_from_frozen_features(images):
    model = build(train_last=3).eval()
    features = model.backbone.frozen_features(images)
    assert torch.equal(model.decode_head(model.extract_feat(features)),
                       model.decode_head(model.extract_feat(images)))


def test_windows_of_a_batch_have_the_labels_of_single_ones(images):
    options = dict(test_cfg=dict(mode='slide', crop_size=(56, 56), stride=(28, 28)))
    model = build(**options).eval()
    meta = dict(ori_shape=(56, 70, 3), img_shape=(56, 70, 3), pad_shape=(56, 70, 3), flip=False)
    with torch.no_grad():
        both = model.forward_test([images], [[meta] * 2])
        alone = [model.forward_test([each[None]], [[meta]])[0] for each in images]
        scores = model.inference(images, [meta] * 2, rescale=True)
    assert all((a == b).all() for a, b in zip(both, alone))
    assert (scores.argmax(1).numpy() == both).mean() > 0.99


def test_training_lowers_the_loss(batch):
    model = build_segmentor(config()).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        losses.append(step(model, batch)['loss'].item())
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize('head, backbone, message', [
    (dict(blocks='both'), {}, "model.decode_head.blocks='both': expected 'own' or 'backbone'"),
    (dict(in_channels=[D, D]), {}, r"model.decode_head.in_channels=\[32, 32\] with "
     "blocks='backbone': expected one width"),
    (dict(in_channels=48), {}, "model.decode_head.in_channels=48 with blocks='backbone': expected "
     "the backbone's width, embed_dim=32"),
    (dict(num_blocks=5), {}, "model.decode_head.num_blocks=5 with blocks='backbone': expected 1 to "
     '4, the number of blocks that are read'),
    (dict(num_blocks=0), {}, 'num_blocks=0 .*expected 1 to 4'),
    ({}, dict(freeze_vit=True), 'num_blocks=2: the backbone is frozen, and the queries pass blocks '
     "from 2 on: .*model.backbone.train_last=2 or adapt .*set blocks='own'"),
    ({}, dict(train_last=1), 'the first block that is trained is 3, .*model.backbone.train_last=2, '
     'set model.decode_head.num_blocks=1'),
    ({}, dict(adapt=dict(LORA, blocks=[3])), 'the first block that is trained is 3, .*'
     'model.backbone.adapt.blocks from 2 on, set model.decode_head.num_blocks=1'),
    ({}, dict(with_fpn=True, out_indices=[0, 1, 2, 3]), 'model.backbone.with_fpn=True: queries '
     'join tokens'),
], ids=str)
def test_what_cannot_work_is_refused(head, backbone, message):
    with pytest.raises(InputError, match=message):
        build_segmentor(config(head, **backbone))


def test_other_segmentors_backbones_and_heads_are_refused(images):
    auxiliary = config()
    auxiliary.auxiliary_head = dict(type='FCNHead', in_channels=D, channels=8, num_classes=5)
    with pytest.raises(InputError, match="model.auxiliary_head with model.decode_head.blocks='ba"):
        build_segmentor(auxiliary)
    foreign = config()
    foreign.backbone = dict(type='ResNet', depth=18)
    with pytest.raises(InputError, match='with a ResNet as the backbone, .*expected InternViT6B'):
        build_segmentor(foreign)
    plain = config(kind='EncoderDecoder')
    model = build_segmentor(plain).float().eval()
    with pytest.raises(InputError, match="expected it as the decode_head of model.type='InternViT"):
        model.encode_decode(images, None)
