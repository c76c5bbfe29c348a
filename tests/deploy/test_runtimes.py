"""What runs exported graphs, where there is none or none that can be run."""
import sys

import pytest

from mmseg_custom.deploy.runtimes import AotRuntime, OnnxRuntime, open_runtime
from mmseg_custom.errors import InputError


@pytest.mark.parametrize('kind, name', [('onnx', 'model.onnx'), ('aot', 'model.pt2')])
def test_folder_without_a_graph(tmp_path, kind, name):
    with pytest.raises(InputError, match=f'{name} is not there: export .* with --{kind}'):
        open_runtime(kind, str(tmp_path), 'cpu')


def test_files_that_are_no_graphs(tmp_path):
    pytest.importorskip('onnxruntime')
    for name, runtime in (('model.onnx', OnnxRuntime), ('model.pt2', AotRuntime)):
        (tmp_path / name).write_bytes(b'no graph')
        with pytest.raises(InputError, match=f'{name} is not read by .*export it again'):
            runtime(str(tmp_path / name))


def test_missing_onnxruntime(tmp_path, monkeypatch):
    (tmp_path / 'model.onnx').write_bytes(b'')
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)  # as where it is not installed
    with pytest.raises(InputError, match='ONNX needs onnxruntime: pip install'):
        open_runtime('onnx', str(tmp_path), 'cpu')


def test_onnxruntime_without_cuda(tmp_path):
    ort = pytest.importorskip('onnxruntime')
    if 'CUDAExecutionProvider' in ort.get_available_providers():
        pytest.skip('this onnxruntime has CUDA')
    with pytest.raises(InputError, match='has no CUDA here: install onnxruntime-gpu'):
        OnnxRuntime(str(tmp_path / 'model.onnx'), 'cuda')
