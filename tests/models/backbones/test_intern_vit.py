import pytest
import torch
from transformers import InternVLVisionConfig, InternVLVisionModel

from mmseg_custom.checkpoint.load import load_backbone
from mmseg_custom.errors import InputError
from mmseg_custom.models import InternViT6B

TINY = dict(embed_dim=96, depth=4, num_heads=3, img_size=56, out_indices=[1, 3])


def build(**changes) -> InternViT6B:
    return InternViT6B(**{**TINY, **changes}).float()


def reference(**changes) -> InternVLVisionModel:
    options = dict(
        hidden_size=96, num_hidden_layers=4, num_attention_heads=3, intermediate_size=384,
        use_qk_norm=True, norm_type='rms_norm', image_size=(56, 56), layer_scale_init_value=0.1)
    config = InternVLVisionConfig(**{**options, **changes})
    model = InternVLVisionModel(config).eval()
    for parameter in model.parameters():  # the norms and scales too, or they would test nothing
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def copy_weights(source: InternVLVisionModel, target: InternViT6B, tmp_path) -> None:
    source.save_pretrained(tmp_path / 'reference')
    load_backbone(target, str(tmp_path / 'reference'))


@pytest.mark.parametrize('ours, theirs', [
    ({}, {}),
    (dict(qk_normalization=False), dict(use_qk_norm=False)),
    (dict(qk_normalization=False, qkv_bias=True, norm_type='layer_norm'),
     dict(use_qk_norm=False, attention_bias=True, norm_type='layer_norm')),
], ids=['6B', 'without q/k norm', '300M'])
def test_feature_maps_equal_transformers(ours, theirs, tmp_path):
    network = build(**ours).eval()
    model = reference(**theirs)
    copy_weights(model, network, tmp_path)
    images = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        expected = model(images, output_hidden_states=True).hidden_states
        features = network(images)
    for i, found in zip(TINY['out_indices'], features):
        # hidden_states[0] is the embedding, hidden_states[i + 1] what block i returns
        tokens = expected[i + 1][:, 1:].transpose(1, 2).reshape(2, 96, 4, 4)
        assert (found - tokens).norm() / tokens.norm() < 1e-5


def test_gradients_equal_transformers(tmp_path):
    network = build(with_cp=True).train()
    model = reference().train()
    copy_weights(model, network, tmp_path)
    images = torch.randn(2, 3, 56, 56)
    network(images)[-1].square().mean().backward()
    tokens = model(images, output_hidden_states=True).hidden_states[-1][:, 1:]
    tokens.square().mean().backward()
    pairs = [(network.pos_embed, model.embeddings.position_embeddings),
             (network.patch_embed.proj.weight, model.embeddings.patch_embeddings.projection.weight),
             (network.blocks[0].ls1.gamma, model.encoder.layer[0].lambda_1),
             (network.blocks[2].attn.q_norm.weight, model.encoder.layer[2].attention.q_norm.weight)]
    for ours, theirs in pairs:
        assert (ours.grad - theirs.grad).norm() / theirs.grad.norm() < 1e-4


def test_bfloat16_stays_near_float32():
    network = build().eval()
    images = torch.randn(1, 3, 56, 56)
    exact = network(images)[-1]
    found = network.bfloat16()(images)[-1]
    assert found.dtype == torch.float32
    assert (found - exact).norm() / exact.norm() < 3e-2


def test_builds_in_bfloat16_and_restores_the_default_dtype():
    network = InternViT6B(**TINY)
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32


def test_rectangular_images():
    network = build().eval()
    assert [x.shape for x in network(torch.randn(1, 3, 42, 84))] == [(1, 96, 3, 6)] * 2


def test_side_that_is_no_multiple_of_the_patch():
    with pytest.raises(ValueError, match='60x56 pixels.*multiples of the 14-pixel patch'):
        build()(torch.randn(1, 3, 60, 56))


def test_stops_after_the_last_block_that_is_read():
    network = build(out_indices=[1]).eval()
    network.blocks[2] = network.blocks[3] = None
    assert len(network(torch.randn(1, 3, 56, 56))) == 1


def test_frozen_network_stays_in_eval_mode_and_out_of_autograd():
    network = build(freeze_vit=True, drop_path_rate=0.5, out_indices=[0, 1, 2, 3], with_fpn=True)
    network.train()
    assert not network.blocks[3].training and network.up1.training
    trained = {name.split('.')[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {'up1', 'up2'} and list(network.pyramid) == ['up1', 'up2', 'up3', 'up4']
    assert len(dict(network.named_trunk_parameters())) + 6 + 2 == len(list(network.parameters()))
    images = torch.randn(1, 3, 56, 56)
    first, second = network(images), network(images)
    assert all(torch.equal(a, b) for a, b in zip(first, second))  # no drop path
    assert first[0].requires_grad and not first[2].requires_grad
    network.eval().train()
    assert not network.blocks[0].training


def test_positions_that_are_trained_are_fresh_in_training():
    """Also without autograd, where a change that leaves address and version alone goes unseen."""
    images = torch.randn(1, 3, 28, 56)
    for frozen, differs in ((False, True), (True, False)):
        network = build(freeze_vit=frozen).train()
        with torch.no_grad():
            first = network(images)
            network.pos_embed.data.add_(1)
            assert torch.equal(first[0], network(images)[0]) != differs


def test_pyramid_strides():
    network = build(out_indices=[0, 1, 2, 3], with_fpn=True, with_final_norm=True)
    shapes = [tuple(x.shape[2:]) for x in network(torch.randn(1, 3, 56, 56))]
    assert shapes == [(16, 16), (8, 8), (4, 4), (2, 2)]


def test_checkpointing_changes_no_gradient():
    grads = []
    for with_cp in (False, True):
        torch.manual_seed(1)
        network = build(with_cp=with_cp, drop_path_rate=0.3).train()
        torch.manual_seed(2)
        network(torch.ones(4, 3, 56, 56))[-1].sum().backward()
        grads.append(network.blocks[0].mlp.fc1.weight.grad)
    assert torch.equal(*grads)


def test_parameter_names_are_the_file_format():
    network = build(depth=1, out_indices=[0])
    block = [f'blocks.0.{name}' for name in (
        'norm1.weight', 'attn.qkv.weight', 'attn.q_norm.weight', 'attn.k_norm.weight',
        'attn.proj.weight', 'attn.proj.bias', 'ls1.gamma', 'norm2.weight', 'mlp.fc1.weight',
        'mlp.fc1.bias', 'mlp.fc2.weight', 'mlp.fc2.bias', 'ls2.gamma')]
    expected = ['pos_embed', 'cls_token', 'patch_embed.proj.weight', 'patch_embed.proj.bias']
    assert sorted(network.state_dict()) == sorted(expected + block)
    pyramid = build(out_indices=[0, 1, 2, 3], with_fpn=True)
    assert {f'{up}.{kind}' for up in ('up1.0', 'up1.1', 'up1.3', 'up2.0')
            for kind in ('weight', 'bias')} == {n for n in pyramid.state_dict() if n[:2] == 'up'}


@pytest.mark.parametrize('changes, message', [
    (dict(dept=4), "'dept'.*did you mean 'depth'"),
    (dict(out_indices=[4]), 'between 0 and depth - 1 = 3'),
    (dict(out_indices=[2, 1]), 'ascending'),
    (dict(with_fpn=True), 'exactly 4 feature maps, not 2'),
])
def test_wrong_arguments_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        build(**changes)


def test_names_of_the_2024_configs():
    network = build(layerscale_no_force_fp32=False, freeze_vit=True, unfreeze_pos_embed=True)
    assert network.blocks[0].ls1.force_fp32
    assert [n for n, p in network.named_parameters() if p.requires_grad] == ['pos_embed']
    network(torch.randn(1, 3, 56, 56))[-1].sum().backward()
    assert network.pos_embed.grad is not None


@pytest.mark.parametrize('pyramid', [False, True])
def test_frozen_features_go_the_rest_of_the_way(pyramid):
    network = build(freeze_vit=True, with_fpn=pyramid,
                    out_indices=[0, 1, 2, 3] if pyramid else [1, 3]).train()
    images = torch.randn(2, 3, 56, 56)
    features = network.frozen_features(images)
    assert all(not x.requires_grad and x.shape == (2, 96, 4, 4) for x in features)
    for expected, found in zip(network(images), network(features), strict=True):
        assert torch.equal(found, expected) and found.requires_grad == expected.requires_grad
