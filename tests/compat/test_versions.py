"""What mmcv 1.7 does with new versions of Python, or to PyTorch."""
import mmcv.utils.ext_loader as ext_loader
import torch
from mmcv.runner import build_optimizer
from torch import nn

from mmseg_custom import compat


def test_groups_of_parameters_need_nothing_that_python_dropped(monkeypatch):
    monkeypatch.delattr(ext_loader.pkgutil, 'find_loader', raising=False)
    monkeypatch.setattr(ext_loader, 'pkgutil', ext_loader.pkgutil)
    compat.look_for_mmcv_ops()
    optimizer = build_optimizer(nn.Linear(2, 2), dict(
        type='SGD', lr=0.1, paramwise_cfg=dict(bias_lr_mult=2.0)))
    assert [group['lr'] for group in optimizer.param_groups] == [0.1, 0.2]


def test_operators_of_torch_can_be_listed():
    assert compat.NPU_FUNCTION not in [*torch.ops, *vars(torch.ops)]
