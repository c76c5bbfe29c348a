"""Networks of windows as packages of AOTInductor."""
import os

import pytest
import torch
from helpers.window_networks import window_network, writes_graphs

from mmseg_custom.deploy import agreement
from mmseg_custom.deploy.aot import export_aot
from mmseg_custom.deploy.runtimes import AotRuntime, open_runtime
from mmseg_custom.errors import InputError


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
    """Keeps what the compiler makes once for all networks, until the module is done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path_factory.mktemp('inductor')))
        yield


@pytest.mark.slow
@writes_graphs
@pytest.mark.parametrize('kind, dtype', [('linear', torch.bfloat16), ('upernet', torch.float32),
                                         ('masks', torch.float32)])
def test_package_gives_the_logits_of_windows_of_any_number_and_size(tmp_path, kind, dtype):
    network = window_network(kind, dtype)
    found = export_aot(network, str(tmp_path / 'model.pt2'), (56, 84))
    assert found.difference < (0.05 if dtype == torch.bfloat16 else 1e-4) * found.largest
    assert os.listdir(tmp_path) == ['model.pt2']
    runtime = open_runtime('aot', str(tmp_path), 'cpu')
    for batch, rows, columns in ((1, 4, 4), (5, 7, 11)):
        windows = torch.randn(batch, 3, rows * 14, columns * 14)
        with torch.no_grad():
            expected = network(windows)
        assert (runtime(windows) - expected).abs().max() <= (
            0.05 if dtype == torch.bfloat16 else 1e-4) * expected.abs().max()
    with pytest.raises(InputError, match='was compiled for cpu, and not for cuda'):
        AotRuntime(str(tmp_path / 'model.pt2'), 'cuda')


@pytest.mark.slow
@writes_graphs
def test_package_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setitem(agreement.TOLERANCE, torch.float32, -1.0)
    with pytest.raises(InputError, match='the package of AOTInductor does not compute'):
        export_aot(window_network('linear'), str(tmp_path / 'model.pt2'), (56, 84))
    assert os.listdir(tmp_path) == []


def test_machine_without_a_compiler_is_told_so(tmp_path, monkeypatch):
    from torch._inductor import config
    monkeypatch.setattr(config.cpp, 'cxx', ('no-such-compiler',))
    with pytest.raises(InputError, match='AOTInductor needs a C.. compiler.*install g'):
        export_aot(window_network('linear'), str(tmp_path / 'model.pt2'), (56, 84))
    assert os.listdir(tmp_path) == []
