"""Exported segmentors whose network is run by onnxruntime, or as a package of AOTInductor."""
import numpy as np
import pytest
import torch
from helpers.data import SMALL_LINEAR, write_config
from helpers.exported import SIZES, draw_validation, labels_of_test, write_checkpoint
from helpers.window_networks import writes_graphs
from torch.torch_version import TorchVersion

from mmseg_custom.deploy import Segmentor
from mmseg_custom.deploy.graphs import check_graphs
from mmseg_custom.errors import InputError


def share_of_equal(mine: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    assert [each.shape for each in mine] == [each.shape for each in theirs] == list(SIZES)
    return float(np.mean(np.concatenate([(a == b).ravel() for a, b in zip(mine, theirs)])))


@pytest.mark.slow
@writes_graphs
@pytest.mark.parametrize('recipe, extra, graphs', [
    ('linear_probing_tiny', SMALL_LINEAR, ['onnx', 'aot']),
    ('lora_tiny', '', ['onnx'])])
def test_labels_of_graphs_are_those_of_tests(tmp_path, run_tool, monkeypatch, recipe, extra,
                                             graphs):
    pytest.importorskip('onnxruntime')
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path / 'cache'))
    config = write_config(tmp_path / 'small.py', draw_validation(tmp_path), recipe,
                          f"{extra}precision = 'fp32'\n")
    checkpoint, out = tmp_path / 'small.pth', tmp_path / 'out'
    write_checkpoint(config, checkpoint)
    code, output, _ = run_tool('export.py', config, checkpoint, out,
                               *(f'--{graph}' for graph in graphs))
    assert code == 0 and output.count('of the cells have the same class') == len(graphs)
    assert 'onnxruntime and PyTorch, both in float32, on windows (1 of' in output
    paths, expected = labels_of_test(config, checkpoint, tmp_path / 'work')
    for runtime in graphs:
        segmentor = Segmentor.from_pretrained(out, 'cpu', runtime=runtime)
        assert all(parameter.is_meta for parameter in segmentor.parameters())
        assert share_of_equal(segmentor(paths), expected) >= 0.9999


@pytest.mark.parametrize('options, message', [
    (['--dtype', 'float16'], '--dtype is that of --onnx'),
    (['--device', 'cuda'], '--device is that of --aot')])
def test_options_of_graphs_that_are_not_written(tmp_path, run_tool, options, message):
    for name in ('c.py', 'c.pth'):
        (tmp_path / name).touch()
    code, _, error = run_tool('export.py', tmp_path / 'c.py', tmp_path / 'c.pth', tmp_path / 'out',
                              *options)
    assert code and message in error


def test_graphs_of_an_old_pytorch_are_refused_before_a_folder_is_written(monkeypatch):
    monkeypatch.setattr(torch, '__version__', TorchVersion('2.6.0+cpu'))
    check_graphs(onnx=False, aot=False, device='cpu')
    with pytest.raises(InputError, match=r'need PyTorch 2.11 or newer .* this is 2.6.0.cpu: pip'):
        check_graphs(onnx=True, aot=False, device='cpu')


def test_unknown_runtime(tmp_path):
    with pytest.raises(InputError, match="runtime='onx' .did you mean 'onnx'.*'torch', 'onnx'"):
        Segmentor.from_pretrained(tmp_path, 'cpu', runtime='onx')
