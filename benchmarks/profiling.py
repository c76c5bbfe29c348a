"""The profile of one iteration: what is launched, what is copied, how long the device is idle."""
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from .timing import synchronize

LONGEST = 8  # kernels, or operators on the CPU, that are named
WAITS = ('cudaStreamSynchronize', 'cudaDeviceSynchronize', 'cudaEventSynchronize', 'cudaMemcpy')
STEPS = 'benchmark_steps'  # name of the range that the iterations are in
ON_DEVICE = ('kernel', 'gpu_memcpy', 'gpu_memset')


def profile(step: Callable[[], object], device: str, steps: int) -> dict:
    """Profiles some iterations; returns the figures of one.

    On a GPU: ``kernels``, ``copied_bytes`` between host and device, ``ms`` from the first to the
    last activity of the device, ``idle_share`` of that time, and ``host_waits``, the calls in which
    the host waits for the device. On the CPU: ``operators`` and ``ms``. ``longest_ms`` has the
    milliseconds of what takes longest, by its name.
    """
    from torch.profiler import ProfilerActivity, record_function
    from torch.profiler import profile as record
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == 'cuda')
    step()
    synchronize(device)
    with record(activities=activities) as recorded, record_function(STEPS):
        for _ in range(steps):
            step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'trace.json'
        recorded.export_chrome_trace(str(path))
        events = [event for event in json.loads(path.read_text())['traceEvents']
                  if event.get('ph') == 'X']
    if device == 'cuda':
        return _of_gpu(events, steps)
    # Operators call others: the time that each takes itself.
    times = {each.key: each.self_cpu_time_total / 1e3 / steps for each in recorded.key_averages()
             if each.key != STEPS}
    return _of_cpu(events, steps, dict(Counter(times).most_common(LONGEST)))


def _of_gpu(events: list[dict], steps: int) -> dict:
    on_device = [event for event in events if event.get('cat') in ON_DEVICE]
    kernels = [event for event in on_device if event['cat'] == 'kernel']
    copies = [event for event in on_device if event['cat'] == 'gpu_memcpy'
              and 'DtoD' not in event['name']]
    # The profiler itself waits at its end.
    end_of_steps = max((event['ts'] + event['dur'] for event in events if event['name'] == STEPS
                        and event.get('cat') == 'user_annotation'), default=float('inf'))
    waits = [event for event in events if event.get('cat') in ('cuda_runtime', 'cuda_driver')
             and event['name'] in WAITS and event['ts'] < end_of_steps]
    if not on_device:
        return dict(kernels=0)
    start = min(event['ts'] for event in on_device)
    end = max(event['ts'] + event['dur'] for event in on_device)
    return dict(kernels=round(len(kernels) / steps),
                copied_bytes=round(sum(event['args'].get('bytes', 0) for event in copies) / steps),
                ms=(end - start) / 1e3 / steps,
                idle_share=1 - busy(on_device) / (end - start),
                host_waits=len(waits) / steps,
                longest_ms=_longest(kernels, steps))


def _of_cpu(events: list[dict], steps: int, longest: dict[str, float]) -> dict:
    operators = [event for event in events if event.get('cat') == 'cpu_op']
    start = min(event['ts'] for event in operators)
    end = max(event['ts'] + event['dur'] for event in operators)
    return dict(operators=round(len(operators) / steps), ms=(end - start) / 1e3 / steps,
                longest_ms=longest)


def busy(events: Iterable[dict]) -> float:
    """Returns the length of the union of the events' times, which overlap on several streams."""
    total, reached = 0.0, float('-inf')
    for start, end in sorted((event['ts'], event['ts'] + event['dur']) for event in events):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _longest(events: Iterable[dict], steps: int) -> dict[str, float]:
    times: Counter[str] = Counter()
    for event in events:
        times[event['name']] += event['dur'] / 1e3 / steps
    return dict(times.most_common(LONGEST))
