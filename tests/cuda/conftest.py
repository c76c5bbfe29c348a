"""A simulated CUDA device for each test of this folder."""
import pytest
import torch
from helpers.fake_cuda import ThreadInTurn, simulate_cuda

from mmseg_custom.checkpoint.shard_reader import OLDEST_TORCH
from mmseg_custom.compat import _copy_stream
from mmseg_custom.engine import background
from mmseg_custom.layers import attention
from mmseg_custom.layers.attention import select_kernel

CHOSEN_ONCE = (select_kernel, _copy_stream)  # for a process, by what the machine has


@pytest.fixture(scope='session')
def peft():
    """Imports peft before a GPU is simulated, whose properties its imports would ask for."""
    import peft
    return peft


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    """Lets torch find GPUs."""
    if torch.__version__ < OLDEST_TORCH:  # 2.6 asks the driver for the kernel of a convolution
        pytest.skip(f'PyTorch {torch.__version__} cannot simulate a GPU without a driver')
    for chosen in CHOSEN_ONCE:
        chosen.cache_clear()
    simulate_cuda(monkeypatch)
    monkeypatch.setattr(background, 'ThreadPoolExecutor', ThreadInTurn)
    monkeypatch.setattr(attention, 'sdpa_backend', lambda: 'CUDNN_ATTENTION')
    yield monkeypatch
    for chosen in CHOSEN_ONCE:
        chosen.cache_clear()
