"""What the tracker records of single operations, storages and collectives."""
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F  # noqa: N812

from mmseg_custom.doctor.kernels import ATTENTION, CONVOLUTION, PRODUCT, Kernel
from mmseg_custom.doctor.memory_tracker import MemoryTracker, peaks

MB = 10**6


@pytest.fixture
def tracker():
    tracker = MemoryTracker()
    with FakeTensorMode(), tracker:
        yield tracker


def test_peaks_are_those_of_each_site(tracker):
    tracker.enter_site('forward')
    x = torch.zeros(MB, dtype=torch.uint8)
    y = x + x
    del y
    tracker.enter_site('backward')
    z = x * x
    tracker.tag((z,), 'gradients')
    tracker.kind = 'head'
    heads = [x.to(torch.float32), x.view(10, -1)]  # a view has no memory of its own
    found = peaks(tracker)
    assert sum(found['forward', ''].values()) == 2 * MB
    assert found['backward', '']['gradients'] == MB and found['backward', '']['head'] == 4 * MB
    number = tracker.number(x)
    assert sum(peaks(tracker, offloaded={number})['forward', ''].values()) == MB
    assert len(heads) == 2 and sum(
        peaks(tracker, permanent={tracker.number(z)})['forward', ''].values()) == 3 * MB


def test_storages_that_are_resized_are_counted_as_they_are(tracker):
    tracker.enter_site('forward', 'block 0')
    gathered = torch.empty(MB, dtype=torch.uint8)
    gathered.untyped_storage().resize_(0)  # as FSDP2 frees what it gathered
    tracker.enter_site('forward', 'block 1')
    other = torch.zeros(MB // 2, dtype=torch.uint8)
    gathered.untyped_storage().resize_(MB)
    tracker.enter_site('forward', 'block 2')
    del gathered, other
    tracker.enter_site('forward', 'block 3')
    found = {part[-1]: sum(parts.values()) for (_, part), parts in peaks(tracker).items()}
    assert found == {'0': MB, '1': 3 * MB // 2, '2': 3 * MB // 2, '3': 0}


def test_arithmetic_is_counted_by_kernel(tracker):
    x, weight = torch.zeros(8, 16), torch.zeros(32, 16)
    F.linear(x, weight)
    F.linear(x, weight, torch.zeros(32))
    F.linear(x[:1].bfloat16(), weight.bfloat16())
    F.linear(x.bfloat16(), weight.bfloat16())
    images, kernels = torch.zeros(2, 3, 10, 10), torch.zeros(4, 3, 3, 3, requires_grad=True)
    F.conv2d(images, kernels, padding=1).sum().backward()
    q = torch.zeros(1, 2, 8, 16)
    F.scaled_dot_product_attention(q, q, q)
    product, convolution, attention = 2 * 8 * 16 * 32, 2 * 2 * 100 * 4 * 27, 4 * 2 * 8 * 8 * 16
    assert tracker.flops == {
        Kernel(PRODUCT, torch.float32): 2 * product,
        Kernel(PRODUCT, torch.bfloat16): product * 9 // 8,
        Kernel(CONVOLUTION, torch.float32): 2 * convolution,  # with the gradient of the kernels
        Kernel(ATTENTION, torch.float32): attention}
    assert {kernel: (call.flops, call.shapes) for kernel, call in tracker.calls.items()} == {
        Kernel(PRODUCT, torch.float32): (product, ((8, 16), (32, 16))),
        Kernel(PRODUCT, torch.bfloat16): (product, ((8, 16), (32, 16))),
        Kernel(CONVOLUTION, torch.float32): (convolution, ((2, 3, 10, 10), (4, 3, 3, 3))),
        Kernel(ATTENTION, torch.float32): (attention, ((1, 2, 8, 16),) * 3)}


def test_a_convolution_of_groups_has_a_backward_pass_of_twice_its_operations(tracker):
    x = torch.randn(1, 32, 8, 8, requires_grad=True)
    weight = torch.randn(32, 1, 3, 3, requires_grad=True)
    y = F.conv2d(x, weight, padding=1, groups=32)
    forward = tracker.flops.total()
    y.sum().backward()
    assert forward == 2 * 32 * 64 * 9 and tracker.flops.total() == 3 * forward
