"""Networks of windows in onnxruntime."""
import os
import sys

import pytest
import torch
from helpers.window_networks import window_network, writes_graphs

from mmseg_custom.deploy import agreement
from mmseg_custom.deploy.network import WindowNetwork
from mmseg_custom.deploy.onnx_export import export_onnx
from mmseg_custom.deploy.runtimes import OnnxRuntime, open_runtime
from mmseg_custom.errors import InputError
from mmseg_custom.models.backbones.intern_vit import InternViT6B
from mmseg_custom.models.decode_heads.fcn_head import FCNHead


@pytest.fixture
def libraries():
    """Skips a test where a library of the extra ``onnx`` is missing."""
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name)


@pytest.mark.slow
@writes_graphs
@pytest.mark.parametrize('kind', ['linear', 'upernet', 'masks', 'eomt', 'adapter', 'timm', 'int8'])
def test_onnxruntime_gives_the_logits_of_windows_of_any_number_and_size(tmp_path, libraries, kind):
    network = window_network(kind)
    side = network.multiple
    found = export_onnx(network, str(tmp_path / 'model.onnx'), (4 * side, 6 * side))
    assert found.difference < 1e-4 * found.largest
    runtime = open_runtime('onnx', str(tmp_path), 'cpu', threads=1)
    for batch, rows, columns in ((1, 4, 4), (5, 7, 11)):
        windows = torch.randn(batch, 3, rows * side, columns * side)
        with torch.no_grad():
            expected = network(windows)
        torch.testing.assert_close(runtime(windows), expected, rtol=1e-3,
                                   atol=1e-4 * expected.abs().max().item())


@pytest.mark.slow
@writes_graphs
def test_large_networks_have_their_weights_in_a_file_beside_the_graph(tmp_path, libraries):
    network, path = window_network('linear', torch.bfloat16), str(tmp_path / 'model.onnx')
    export_onnx(network, path, (56, 84), large=0)
    assert sorted(os.listdir(tmp_path)) == ['model.onnx', 'model.onnx.data']
    weights = sum(tensor.numel() for tensor in network.parameters()) * 4  # bytes, in float32
    # Nearly all of them: small tensors stay in the graph, or are folded.
    assert os.path.getsize(f'{path}.data') >= 0.95 * weights
    windows = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(OnnxRuntime(path)(windows), network.float()(windows),
                                   rtol=1e-3, atol=1e-4)
    half = export_onnx(network, path, (56, 84), torch.float16)
    assert 0 < half.difference < 0.02 * half.largest
    assert sorted(os.listdir(tmp_path)) == ['model.onnx']  # no weights of the graph before


@pytest.mark.slow
@writes_graphs
def test_graph_that_computes_something_else_is_not_written(tmp_path, libraries, monkeypatch):
    monkeypatch.setitem(agreement.TOLERANCE, torch.float32, 0.0)
    with pytest.raises(InputError, match='ONNX by onnxruntime does not compute what PyTorch does'):
        export_onnx(window_network('linear'), str(tmp_path / 'model.onnx'), (56, 84))
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@writes_graphs
def test_network_of_the_size_of_internvit_300m(tmp_path, libraries):
    backbone = InternViT6B(embed_dim=1024, num_heads=16, depth=24, img_size=448, qkv_bias=True,
                           qk_normalization=False, norm_type='layer_norm', out_indices=[23],
                           use_flash_attn=False)
    head = FCNHead(in_channels=1024, channels=1024, num_classes=150, num_convs=0,
                   concat_input=False, with_norm=True, loss_decode=None)
    path = str(tmp_path / 'model.onnx')
    found = export_onnx(WindowNetwork(backbone, head), path, (224, 224))
    assert found.difference < 1e-4 * found.largest and found.equal > 0.999
    assert os.path.getsize(f'{path}.data') > 1.2e9


def test_what_onnx_is_not_written_in_is_refused(tmp_path, monkeypatch):
    network, path = window_network('linear'), str(tmp_path / 'model.onnx')
    with pytest.raises(InputError, match='ONNX in bfloat16: expected float32 or float16'):
        export_onnx(network, path, (56, 84), torch.bfloat16)
    with pytest.raises(InputError, match="weights in fp8.*frozen_dtype='int8'"):
        export_onnx(window_network('fp8'), path, (56, 84))
    monkeypatch.setitem(sys.modules, 'onnx', None)  # as where it is not installed
    with pytest.raises(InputError, match=r'ONNX needs onnx: pip install "mmseg-custom\[onnx\]"'):
        export_onnx(network, path, (56, 84))
    assert os.listdir(tmp_path) == []
