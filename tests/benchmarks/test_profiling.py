"""The profile of an iteration, from the events of a trace as PyTorch writes it on a GPU."""
import pytest
import torch

from benchmarks.profiling import STEPS, _of_gpu, profile

# Two iterations: a kernel each, a copy that overlaps the first, a wait in the second one.
EVENTS = [
    dict(cat='user_annotation', name=STEPS, ts=0, dur=100),
    dict(cat='kernel', name='gemm', ts=10, dur=30, args={}),
    dict(cat='kernel', name='gemm', ts=60, dur=30, args={}),
    dict(cat='gpu_memcpy', name='Memcpy HtoD (Pinned -> Device)', ts=20, dur=25,
         args=dict(bytes=1000)),
    dict(cat='gpu_memcpy', name='Memcpy DtoD (Device -> Device)', ts=88, dur=2,
         args=dict(bytes=5000)),
    dict(cat='cuda_runtime', name='cudaStreamSynchronize', ts=50, dur=5),
    dict(cat='cuda_runtime', name='cudaLaunchKernel', ts=55, dur=1),
    dict(cat='cuda_runtime', name='cudaDeviceSynchronize', ts=101, dur=5)]  # the profiler's own


def test_a_trace_of_a_gpu():
    found = _of_gpu(EVENTS, steps=2)
    assert found['kernels'] == 1 and found['copied_bytes'] == 500 and found['host_waits'] == 0.5
    assert found['ms'] == 0.04 and found['idle_share'] == pytest.approx(15 / 80)
    assert found['longest_ms'] == {'gemm': 0.03}
    assert _of_gpu(EVENTS[:1], 2) == dict(kernels=0)  # a driver that shows no kernels


def test_operators_on_the_cpu():
    weight = torch.randn(64, 64)
    found = profile(lambda: torch.relu(weight @ weight), 'cpu', steps=4)
    assert found['operators'] >= 2 and found['ms'] > 0 and 'idle_share' not in found
    assert 'aten::mm' in found['longest_ms'] and STEPS not in found['longest_ms']
