"""What the tracker records of single operations, storages and collectives."""
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F  # noqa: N812

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
    assert sum(found['forward', 0].values()) == 2 * MB
    assert found['backward', 0]['gradients'] == MB and found['backward', 0]['head'] == 4 * MB
    number = tracker.number(x)
    assert sum(peaks(tracker, offloaded={number})['forward', 0].values()) == MB
    assert len(heads) == 2 and sum(
        peaks(tracker, permanent={tracker.number(z)})['forward', 0].values()) == 3 * MB


def test_storages_that_are_resized_are_counted_as_they_are(tracker):
    tracker.enter_site('forward', 0)
    gathered = torch.empty(MB, dtype=torch.uint8)
    gathered.untyped_storage().resize_(0)  # as FSDP2 frees what it gathered
    tracker.enter_site('forward', 1)
    other = torch.zeros(MB // 2, dtype=torch.uint8)
    gathered.untyped_storage().resize_(MB)
    tracker.enter_site('forward', 2)
    del gathered, other
    tracker.enter_site('forward', 3)
    found = {number: sum(parts.values()) for (_, number), parts in peaks(tracker).items()}
    assert found == {0: MB, 1: 3 * MB // 2, 2: 3 * MB // 2, 3: 0}


def test_arithmetic_is_counted_by_dtype(tracker):
    x, weight = torch.zeros(8, 16), torch.zeros(32, 16)
    F.linear(x, weight)
    F.linear(x.bfloat16(), weight.bfloat16())
    assert tracker.flops == {torch.float32: 2 * 8 * 16 * 32, torch.bfloat16: 2 * 8 * 16 * 32}
    q = torch.zeros(1, 2, 8, 16)
    F.scaled_dot_product_attention(q, q, q)
    assert tracker.flops[torch.float32] == 2 * 8 * 16 * 32 + 2 * 2 * (2 * 8 * 8 * 16)
