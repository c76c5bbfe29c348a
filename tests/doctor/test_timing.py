"""The kernels whose rates are measured are those that run."""
import pytest
import torch
from helpers.tiny_networks import segmentor_config
from mmcv import Config
from torch.utils.flop_counter import FlopCounterMode

from mmseg_custom.doctor import checks, timing
from mmseg_custom.doctor.kernels import ATTENTION, CONVOLUTION, PRODUCT, Kernel, KernelCall
from mmseg_custom.doctor.memory import predict
from mmseg_custom.doctor.memory_tracker import MemoryTracker
from mmseg_custom.doctor.run_shape import RunShape
from mmseg_custom.doctor.timing import assume_rates, measure_rates, seconds_of
from mmseg_custom.engine.options import RunOptions

TFLOP = 1e12
CALLS = [
    KernelCall(Kernel(PRODUCT, torch.bfloat16), 2 * 4096 * 32 * 64, ((4096, 32), (64, 32))),
    KernelCall(Kernel(PRODUCT, torch.int8), 2 * 4096 * 32 * 64, ((4096, 32), (64, 32))),
    KernelCall(Kernel(CONVOLUTION, torch.float32), 2 * 4 * 64 * 96 * 8 * 27,
               ((4, 3, 64, 96), (8, 3, 3, 3)), ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)),
    KernelCall(Kernel(ATTENTION, torch.float32), 4 * 2 * 8 * 32 * 32 * 16, ((2, 8, 32, 16),) * 3)]


@pytest.fixture(scope='module')
def upernet():
    """Estimate of head tuning, whose head is convolutions in float32."""
    model = segmentor_config('upernet', heads=dict(channels=64), freeze_vit=True, embed_dim=64,
                             img_size=112)
    cfg = Config(dict(model=model, optimizer=dict(type='AdamW', lr=1e-4), precision='bf16'))
    return next(each for each in predict(cfg, RunShape('cuda', 1, 2, (112, 112))) if each.chosen)


def test_the_head_is_convolutions_and_the_backbone_products_and_attention(upernet):
    kinds = {kernel: upernet.flops[kernel] for kernel in upernet.calls}
    convolutions = kinds.pop(Kernel(CONVOLUTION, torch.float32))
    assert convolutions > 100 * kinds.pop(Kernel(PRODUCT, torch.float32))
    kinds.pop(Kernel(CONVOLUTION, torch.bfloat16))  # the patch embedding
    assert kinds.keys() == {Kernel(PRODUCT, torch.bfloat16), Kernel(ATTENTION, torch.bfloat16)}
    _, weight = upernet.calls[Kernel(CONVOLUTION, torch.float32)].shapes
    assert weight == (64, 4 * 64, 3, 3)  # of the convolution that fuses the four levels


@pytest.mark.parametrize('call', CALLS, ids=lambda call: str(call.kernel))
def test_a_call_is_repeated_with_fewer_rows(call):
    small = call.shrunk(call.flops / 4)
    for each in (call, call.shrunk(10**15), small):
        with FlopCounterMode(display=False) as counter:
            each.run(each.tensors('cpu'))
        counted = counter.get_total_flops()
        assert counted in (0, each.flops)  # torch counts no attention on the CPU
    assert call.shrunk(10**15) == call and small.flops == pytest.approx(call.flops / 4, rel=0.1)


def test_products_with_adapters_are_limited_by_memory():
    tracker = MemoryTracker()
    x, narrow, wide = torch.ones(256, 512), torch.ones(16, 512), torch.ones(512, 512)
    with tracker:
        x @ wide
        assert tracker.moved_bytes == 0
        x @ narrow.T
    assert tracker.moved_bytes == 4 * (256 * 512 + 16 * 512 + 256 * 16)


def test_kernels_are_measured_under_the_settings_of_the_run(monkeypatch):
    monkeypatch.setattr(timing, 'MIN_SECONDS', 1e-4)
    seen = []

    def run(self, tensors):
        backend = torch.backends.cudnn
        seen.append((self.kernel.kind, tensors[0].dtype, backend.benchmark, backend.deterministic,
                     backend.allow_tf32))

    monkeypatch.setattr(KernelCall, 'run', run)
    before = torch.backends.cudnn.benchmark
    for benchmark in (True, False):
        seen.clear()
        rates, bandwidth = measure_rates('cpu', CALLS, benchmark, not benchmark)
        assert rates.keys() == {call.kernel for call in CALLS} and bandwidth > 0
        assert set(seen) == {(call.kernel.kind, call.kernel.dtype, benchmark, not benchmark, True)
                             for call in CALLS}
    assert torch.backends.cudnn.benchmark == before


def test_assumed_rates_are_those_of_tf32_and_float32(upernet):
    rates, bandwidth = assume_rates(600, upernet.flops)
    assert rates[Kernel(PRODUCT, torch.bfloat16)] == 600 * TFLOP
    assert rates[Kernel(CONVOLUTION, torch.float32)] == 300 * TFLOP
    assert rates[Kernel(PRODUCT, torch.float32)] == 40 * TFLOP
    of_8_bits = Kernel(PRODUCT, torch.int8)
    assert assume_rates(600, [of_8_bits])[0] == {of_8_bits: 1200 * TFLOP}
    expected = sum(n / rates[kernel] for kernel, n in upernet.flops.items())
    assert seconds_of(upernet, rates, bandwidth) == pytest.approx(
        expected + upernet.moved_bytes / bandwidth)


def test_a_full_gpu_costs_the_time_alone(monkeypatch):
    """The rest of the doctor's page is printed."""
    def measure(*_, **__):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has a '
                                     'total capacity of 79.10 GiB of which 0.20 GiB is free.')

    monkeypatch.setattr(timing, 'measure_rates', measure)
    report = checks.Report()
    checks._predict_time(report, Config(), RunOptions(device='cpu'), None)
    found, = report.findings
    assert found.level == 'warning' and '1 GiB were asked for' in found.line()
    assert '\n' not in found.line() and not report.seconds
