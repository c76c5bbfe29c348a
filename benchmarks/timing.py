"""Times of several callables, measured in turns: what disturbs one disturbs the others, too."""
import time
from collections.abc import Callable, Mapping

Work = Mapping[str, Callable[[], object]]
CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}


def synchronize(device: str) -> None:
    """Waits until the device has done its work."""
    if device == 'cuda':
        import torch
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], device: str, count: int = 1,
               clock: str = 'wall') -> float:
    """Measures the seconds of a call, as the mean of some.

    The host runs ahead of a GPU from the first to the last of them, as it does in a run.
    """
    now = CLOCKS[clock]
    synchronize(device)
    start = now()
    for _ in range(count):
        work()
    synchronize(device)
    return (now() - start) / count


def measure_in_turns(work: Work, device: str, seconds: float, rounds: int = 5, warm_up: int = 2,
                     clock: str = 'wall', until: float = float('inf')) -> dict[str, list[float]]:
    """Measures callables in turns; returns the seconds of a call, a sample for each round.

    Args:
        work: Callables by name.
        device: 'cuda' or 'cpu'.
        seconds: Time that all samples of a callable are to take together.
        rounds: Number of samples of each; the order of the callables alternates.
        warm_up: Calls before the first sample; fewer where they take longer than ``seconds``.
        clock: 'wall', or 'cpu' for the CPU time of this process, which other processes on the
            machine do not lengthen.
        until: Time of ``time.monotonic`` at which no further round is begun.
    """
    counts = {name: _calls_of_a_sample(one, device, seconds, rounds, warm_up)
              for name, one in work.items()}
    samples: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds):
        start = time.monotonic()
        for name in list(work)[::1 if number % 2 == 0 else -1]:
            samples[name].append(seconds_of(work[name], device, counts[name], clock))
        if 2 * time.monotonic() - start > until:  # the next would end too late
            break
    return samples


def _calls_of_a_sample(work: Callable[[], object], device: str, seconds: float, rounds: int,
                       warm_up: int) -> int:
    """Warms up; returns how many calls make up a sample."""
    end = time.monotonic() + seconds
    once = seconds_of(work, device)
    for _ in range(warm_up - 1):
        if time.monotonic() > end:
            break
        once = seconds_of(work, device)
    return max(1, min(10 ** 5, int(seconds / rounds / max(once, 1e-7))))
