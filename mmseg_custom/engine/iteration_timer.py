"""Times iterations and evaluations, and estimates from both how long a run still takes."""
import datetime
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmcv.runner import BaseRunner, EvalHook, IterTimerHook


class SegIterTimerHook(IterTimerHook):
    """Replaces mmcv's hook: evaluations are no part of the logged times of iterations.

    Args:
        clock: Function that returns the time in seconds.

    Attributes:
        t: Time when the last iteration ended, or what followed it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._first: float | None = None  # start of the second iteration
        self._timed = self._evaluations = 0
        self._evaluating = self._before_first = 0.  # seconds of evaluations

    def before_epoch(self, runner: BaseRunner) -> None:
        """Starts the clock."""
        self.t = self._clock()

    def before_iter(self, runner: BaseRunner) -> None:
        """Logs the time for which an iteration has waited for its batch."""
        runner.log_buffer.update({'data_time': self._clock() - self.t})

    def after_iter(self, runner: BaseRunner) -> None:
        """Logs the time of an iteration."""
        now = self._clock()
        runner.log_buffer.update({'time': now - self.t})
        self.t = now
        if self._first is None:  # the first iteration starts workers, and compiles kernels
            self._first, self._before_first = now, self._evaluating
        else:
            self._timed += 1

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Counts the time of the block as that of an evaluation."""
        start = self._clock()
        try:
            yield
        finally:
            spent = self._clock() - start
            self._evaluating += spent
            self._evaluations += 1
            self.t += spent

    def left(self, iterations: int, evaluations: int) -> tuple[float, int] | None:
        """Estimates the time that a run still takes.

        Args:
            iterations: Number of iterations that are left.
            evaluations: Number of evaluations that are left.

        Returns:
            Seconds, and the number of evaluations that they do not include, since none has been
            timed yet; None before the second iteration.
        """
        if self._first is None or not self._timed:
            return None
        each = (self.t - self._first - self._evaluating + self._before_first) / self._timed
        if not self._evaluations:
            return each * iterations, evaluations
        return each * iterations + self._evaluating / self._evaluations * evaluations, 0


class TimedEvaluation(EvalHook):
    """Evaluation of a run by iterations whose time is taken: see :func:`evaluating`."""

    def evaluations_left(self, done: int, end: int) -> int:
        """Returns how often it evaluates after some iterations until the last one."""
        if self.by_epoch:
            return 0
        first = self.start or self.interval

        def until(iteration: int) -> int:
            return max(0, (iteration - first) // self.interval + 1)

        return until(end) - until(done)


def timer_of(runner: BaseRunner) -> SegIterTimerHook | None:
    """Returns the timer of a runner."""
    return next((hook for hook in runner.hooks if isinstance(hook, SegIterTimerHook)), None)


@contextmanager
def evaluating(runner: BaseRunner) -> Iterator[None]:
    """Counts the time of the block as that of an evaluation of a run."""
    timer = timer_of(runner)
    if timer is None:
        yield
        return
    with timer.evaluating():
        yield


def estimate(runner: BaseRunner, done: int) -> str | None:
    """Estimates the time that a run still takes.

    Args:
        runner: Runner that counts iterations.
        done: Number of iterations that are done.

    Returns:
        Text such as '1:02:03', or '1:02:03 and 4 evaluations' before the first evaluation; None
        before there is anything to estimate it from.
    """
    timer, end = timer_of(runner), runner.max_iters
    if timer is None or not end:
        return None
    due = sum(hook.evaluations_left(done, end) for hook in runner.hooks
              if isinstance(hook, TimedEvaluation))
    found = timer.left(end - done, due)
    if found is None:
        return None
    text = str(datetime.timedelta(seconds=round(found[0])))
    return text + (f' and {found[1]} evaluation{"s" * (found[1] > 1)}' if found[1] else '')
