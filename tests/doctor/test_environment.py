import pytest
import torch

from mmseg_custom.distributed.devices import GPUProblem
from mmseg_custom.doctor import environment
from mmseg_custom.doctor.run_shape import RunShape

OLD = GPUProblem('the NVIDIA driver is too old', 'update it', unexpected=True)


@pytest.mark.parametrize('device, problem, memory, levels', [
    ('cuda', OLD, None, ['fault']), ('cuda', OLD, 80 << 30, ['warning']), ('cpu', OLD, None, []),
    ('cuda', GPUProblem('this machine has no NVIDIA GPU', 'take another'), None, [])])
def test_gpu_that_cannot_be_used(monkeypatch, device, problem, memory, levels):
    monkeypatch.setattr(environment, 'gpu_problem', lambda: problem)
    found = environment.check_gpus(RunShape(device, 8, 2, (504, 504), memory=memory))
    assert [finding.level for finding in found] == levels
    assert all(finding.line() == 'the NVIDIA driver is too old; update it' for finding in found)


def test_gpus_that_are_not_free_or_not_supported(monkeypatch):
    monkeypatch.setattr(environment, 'gpu_problem', lambda: None)
    for name, value in dict(
            device_count=lambda: 3, get_device_name=lambda index: 'NVIDIA X',
            get_device_capability=lambda index: (6, 1) if index == 2 else (9, 0),
            get_arch_list=lambda: ['sm_90'],
            mem_get_info=[(79 << 30, 80 << 30), (20 << 30, 80 << 30)].__getitem__).items():
        monkeypatch.setattr(torch.cuda, name, value)
    taken, unsupported = environment.check_gpus(RunShape('cuda', 8, 2, (504, 504)))
    assert (taken.level, unsupported.level) == ('warning', 'fault')
    assert taken.line().startswith('GPU 1 (NVIDIA X): 60 GiB of 80 GiB are taken already')
    assert unsupported.line().startswith('GPU 2: has compute capability 6.1, for which this '
                                         'PyTorch')
