"""The progress of a training on the screen: a bar, and what its first iteration waits for."""
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mmcv.runner import BaseRunner, Hook
from tqdm import tqdm

from ..logs import saying
from ..progress import is_terminal, progress_bar
from .iteration_timer import estimate

BAR = '{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]'


class _ProgressHook(Hook):
    """Advances a bar; the first iteration, which starts workers and kernels, may take long.

    Args:
        bar: Bar; None where there is no terminal, and lines of the log tell.
    """

    def __init__(self, bar: tqdm | None):
        self._bar, self._done = bar, 0
        self.first = ExitStack()

    def before_train_iter(self, runner: BaseRunner) -> None:
        """Begins to watch the first iteration."""
        if not self._done:
            self.first.enter_context(saying('the first iteration, which starts workers and '
                                            'kernels'))

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Advances the bar."""
        self._done += 1
        self.first.close()
        if self._bar is not None:
            left = estimate(runner, runner.iter + 1)
            self._bar.set_postfix_str(f'eta {left}' if left else '', refresh=False)
            self._bar.update()


@contextmanager
def progress_of(runner: BaseRunner) -> Iterator[None]:
    """Shows the progress of a runner within the block."""
    with ExitStack() as stack:
        bar = None
        if is_terminal():
            bar = stack.enter_context(progress_bar(runner.max_iters, 'iteration', 'training',
                                                   runner.iter, bar_format=BAR))
        hook = _ProgressHook(bar)
        stack.enter_context(hook.first)
        runner.register_hook(hook, priority='LOWEST')
        yield
