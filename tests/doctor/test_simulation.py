"""What a step on fake tensors of the CPU shares with a step on a GPU."""
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from mmseg_custom.doctor.simulation import simulate_device, simulate_kernels
from mmseg_custom.layers.norm import build_norm
from mmseg_custom.losses import upsampled, upsampled_cross_entropy


def saved_by_norm(device: str, dtype: torch.dtype, strided: bool, simulated: str) -> list[tuple]:
    """Dtype and shape of each tensor that an RMSNorm keeps for the backward pass."""
    saved = []
    network = nn.Sequential(build_norm('rms_norm', 48).to('meta', dtype))
    simulate_kernels(network, simulated)
    with FakeTensorMode(allow_non_fake_inputs=True):
        tokens = torch.empty(2, 5, 3 * 48 if strided else 48, dtype=dtype, device=device,
                             requires_grad=True)[..., :48]
        weight = torch.empty(48, dtype=dtype, device=device, requires_grad=True)
        with saved_tensors_hooks(lambda x: saved.append((x.dtype, x.shape)) or x, lambda x: x):
            torch.func.functional_call(network, {'0.weight': weight}, (tokens,))
    return sorted(saved, key=str)


@pytest.mark.skipif(not hasattr(torch.ops.aten, '_fused_rms_norm_backward'),
                    reason='this PyTorch has no fused kernel')
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32])
@pytest.mark.parametrize('strided', [False, True])
def test_rms_norm_keeps_what_the_kernel_of_a_gpu_keeps(dtype, strided):
    simulated = saved_by_norm('cpu', dtype, strided, 'cuda')
    assert simulated == saved_by_norm('cuda', dtype, strided, 'cpu')  # torch's choice
    assert len(saved_by_norm('cpu', dtype, strided, 'cpu')) > len(simulated)


def test_rms_norm_has_gradients_and_its_parameter():
    network = nn.ModuleDict(dict(inner=nn.Sequential(build_norm('rms_norm', 8))))
    parameters = dict(network.named_parameters())
    simulate_kernels(network, 'cuda')
    assert dict(network.named_parameters()) == parameters
    x = torch.randn(2, 5, 8, requires_grad=True)
    network.inner(x).sum().backward()
    assert x.grad.shape == x.shape and parameters['inner.0.weight'].grad.shape == (8,)


@pytest.mark.parametrize('device, groups', [('cpu', 3), ('cuda', 1)])
def test_losses_take_as_many_logit_maps_at_once_as_on_the_device(device, groups, monkeypatch):
    planned = []
    plan = upsampled._plan
    monkeypatch.setattr(upsampled, '_plan', lambda *args: (
        planned.append(part) or part for part in plan(*args)))
    with simulate_device(device):
        upsampled_cross_entropy(torch.randn(3, 4, 6, 6), torch.zeros(3, 12, 12).long())
    assert len({str(group) for group, _ in planned}) == groups
