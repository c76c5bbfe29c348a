"""Fixtures of the tests that need a GPU; with ``--device cpu`` the same tests run on the CPU."""
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers.runs import write_small_config

os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # before cuBLAS starts


@pytest.fixture(scope='session')
def device(request: pytest.FixtureRequest) -> str:
    """The device that is tested: 'cuda', or 'cpu' to try the tests themselves."""
    device = request.config.getoption('--device')
    if device == 'cuda' and not torch.cuda.is_available():
        pytest.skip('no CUDA device; --device cpu tries these tests on the CPU')
    return device


@pytest.fixture(autouse=True)
def _modes() -> Iterator[None]:
    """Restores what a run in this process sets."""
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, benchmark


@pytest.fixture
def exact_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computes float32 convolutions in float32, where TF32 is PyTorch's default."""
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


@pytest.fixture(scope='session')
def small_config(tmp_path_factory) -> Path:
    """A config of 8 iterations of UPerNet with dropout and drop path, and its data."""
    return write_small_config(tmp_path_factory.mktemp('small'))


@pytest.fixture
def train(run_tool, device) -> Callable[..., str]:
    """Runs tools/train.py in this process, which has started CUDA: arguments -> what it printed."""
    def train(*arguments: object) -> str:
        code, out, error = run_tool('train.py', *arguments, '--device', device)
        assert code == 0, f'{out}\n{error}'[-5000:]
        return out + error
    return train
