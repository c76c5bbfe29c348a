"""Copies of networks in other dtypes."""
import copy

import torch
from helpers.window_networks import window_network

from mmseg_custom.deploy.network import WindowNetwork
from mmseg_custom.deploy.recast import computing_in, without_values
from mmseg_custom.distributed.casts import ParameterCasts

WINDOWS = torch.randn(2, 3, 56, 70, generator=torch.Generator().manual_seed(0))


def test_copy_on_the_meta_device_has_the_dtypes_to_compute_in():
    network = window_network('int8')
    made = without_values(network, torch.float16)
    assert all(tensor.is_meta for tensor in made.state_dict().values())
    dtypes = {name: tensor.dtype for name, tensor in made.state_dict().items()}
    assert dtypes['backbone.pos_embed'] == torch.float16
    assert dtypes['decode_head.conv_seg.weight'] == torch.float32
    quantized = 'backbone.blocks.0.mlp.fc1.weight'
    assert (dtypes[quantized], dtypes[f'{quantized}_scale']) == (torch.int8, torch.float32)
    assert not any(tensor.is_meta for tensor in network.state_dict().values())


def test_copy_computes_in_float32_on_weights_that_it_shares():
    network = window_network('upernet', torch.bfloat16)
    made = computing_in(network, torch.float32)
    with torch.no_grad():
        found = made(WINDOWS)
        assert torch.equal(found, copy.deepcopy(network).float()(WINDOWS))
        assert not torch.equal(found, network(WINDOWS))
    weight = 'backbone.blocks.0.attn.qkv.weight'
    assert made.get_parameter(weight).data_ptr() == network.get_parameter(weight).data_ptr()
    assert network.dtype == torch.bfloat16


def test_copy_has_no_casts_of_the_network():
    network = window_network('linear')
    classifier = network.decode_head.conv_seg
    ParameterCasts(classifier, ['weight', 'bias'], torch.bfloat16, torch.bfloat16)
    network.backbone.set_map_format(torch.bfloat16, torch.channels_last)
    made = computing_in(network, torch.float32)
    assert ParameterCasts.of(made.decode_head.conv_seg) is None
    assert ParameterCasts.of(classifier) is not None
    with torch.no_grad():
        assert made.backbone(WINDOWS)[0].dtype == torch.float32
        assert network.backbone(WINDOWS)[0].dtype == torch.bfloat16


def test_blocks_that_queries_join_are_those_of_the_copy():
    network = window_network('eomt', torch.bfloat16)
    made = computing_in(network, torch.float32)
    assert isinstance(made, WindowNetwork)
    joined, = made.decode_head.blocks._joined
    assert joined is made.backbone
