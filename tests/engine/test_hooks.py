"""Hooks under runners of mmcv."""
from types import SimpleNamespace

import pytest
import torch
from helpers.fake_cuda import on_cuda
from mmcv.runner import LogBuffer

from mmseg_custom.engine.hooks import SegOptimizerHook
from mmseg_custom.engine.log_buffer import DeferredLogBuffer


@pytest.mark.parametrize('buffer, kind', [(LogBuffer, float), (DeferredLogBuffer, torch.Tensor)])
def test_norms_of_gradients_are_what_the_log_takes(buffer, kind):
    """Mmcv's makes an array of its values, which no tensor of a GPU becomes."""
    with on_cuda():
        model = torch.nn.Linear(2, 1, device='cuda')
        optimizer = torch.optim.SGD(model.parameters(), 0.1, foreach=False)
        loss = model(torch.ones(3, 2, device='cuda')).sum()
        runner = SimpleNamespace(model=model, optimizer=optimizer, log_buffer=buffer(),
                                 outputs=dict(loss=loss, num_samples=3))
        SegOptimizerHook(grad_clip=dict(max_norm=1.)).after_train_iter(runner)
    value, = runner.log_buffer.val_history['grad_norm']
    assert isinstance(value, kind)
