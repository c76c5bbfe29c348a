import pytest
import torch

from mmseg_custom.errors import InputError
from mmseg_custom.models import InternViT6B

TINY = dict(embed_dim=96, depth=4, num_heads=3, img_size=56, out_indices=[1, 3])
LORA = dict(type='lora', r=4)
PARTS = [dict(adapt=LORA), dict(adapt=dict(LORA, use_dora=True)),
         dict(adapt=dict(LORA, blocks=[2, 3])), dict(train_last=2), dict(train_last=3),
         dict(train_last=1, train_norms=True)]


def build(**changes) -> InternViT6B:
    torch.manual_seed(0)
    return InternViT6B(**{**TINY, **changes})


@pytest.fixture(scope='module')
def images() -> torch.Tensor:
    return torch.randn(2, 3, 56, 70, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('adapt', [part['adapt'] for part in PARTS if 'adapt' in part],
                         ids=['lora', 'dora', 'blocks'])
def test_adapters_that_start_at_zero_change_no_bit(adapt, dtype, images):
    frozen = build(freeze_vit=True).to(dtype)
    adapted = build(adapt=adapt).to(dtype)
    expected = frozen(images.to(dtype))
    for mode in (True, False):
        adapted.train(mode)
        found = adapted(images.to(dtype))
        assert all(map(torch.equal, expected, found)), mode
        assert found[1].requires_grad
    with torch.no_grad():
        assert all(map(torch.equal, expected, adapted(images.to(dtype))))


@pytest.mark.parametrize('options', PARTS, ids=str)
def test_gradients_reach_what_is_trained_and_nothing_else(options, images):
    network = build(**options, with_cp=True).float().train()
    sum(x.square().mean() for x in network(images)).backward()
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in network.named_parameters() if p.grad is not None}
    first = network.first_trained
    assert min(int(name.split('.')[1]) for name in trained) == first
    assert all(name.startswith('blocks.') for name in trained)
    assert network.blocks[first].training
    assert not any(block.training for block in network.blocks[:first])


def test_gradients_of_last_blocks_are_those_of_full_tuning(images):
    part, full = build(train_last=2).float(), build().float()
    for network in (part, full):
        network(images)[1].square().mean().backward()
    gradients = dict(full.named_parameters())
    for name, parameter in part.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, gradients[name].grad)


@pytest.mark.parametrize('options', PARTS, ids=str)
def test_goes_on_from_frozen_features(options, images):
    network = build(**options).float().eval()
    features = network.frozen_features(images)
    shapes = [tuple(x.shape[1:]) for x in features]
    assert shapes == network.frozen_feature_shapes(56, 70)
    assert len(shapes) == 2 + (network.first_trained > 1)
    assert all(map(torch.equal, network(features), network(images)))


def test_blocks_are_recomputed_from_the_first_trained_one(images):
    network, calls = build(train_last=2, with_cp=True).float().train(), []
    for i, block in enumerate(network.blocks):
        block.register_forward_pre_hook(lambda *_, i=i: calls.append(i))
    network.set_checkpointing(1, first=1)
    network(images)[1].square().mean().backward()
    assert calls == [0, 1, 2, 3, 2]


@pytest.mark.parametrize('options, eight', [
    (dict(freeze_vit=True), 4), (dict(train_last=3), 1), (dict(adapt=LORA), 4)], ids=str)
def test_frozen_linear_layers_have_8_bits(options, eight, images):
    network = build(**options, frozen_dtype='int8')
    assert [p.dtype for p in network.parameters()].count(torch.int8) == 4 * eight
    assert network(images.bfloat16())[1].isfinite().all()
    with pytest.raises(InputError, match='train_last=4, which trains all blocks that are read'):
        build(train_last=4, frozen_dtype='int8')
