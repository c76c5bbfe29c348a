"""The numbers of a diverging run arrive from the GPU, and name the iteration that was the first."""
import re

import pytest
import torch

from mmseg_custom.engine.divergence import _send

pytestmark = pytest.mark.gpu


def test_numbers_arrive_without_a_wait(device):
    side = 4096 if device == 'cuda' else 8
    values = torch.randn(side, side, device=device)
    for _ in range(20):
        values = values @ values / 64
    numbers = _send(3, 0.1, {'the loss': (values * 0).sum() / 0, 'the gradient norm': 1.})
    if device == 'cuda':
        assert not numbers.has_arrived() and numbers.values.is_pinned()
    numbers.wait()
    assert numbers.has_arrived()
    assert str(numbers.fault()) == 'the loss is nan in iteration 3, at a learning rate of 0.1'


def test_a_run_that_diverges_stops(run_tool, device, small_config, tmp_path):
    code, out, error = run_tool('train.py', small_config, '--device', device, '--seed', 0,
                                '--work-dir', tmp_path, '--cfg-options', 'optimizer.lr=1e30',
                                'checkpoint_config.interval=8', 'evaluation.interval=8')
    last = error.strip().splitlines()[-1]
    assert code == 1 and re.search(r'is (nan|inf) in iteration [23], at a learning rate of', last)
    assert not list(tmp_path.glob('*.pth')), out
