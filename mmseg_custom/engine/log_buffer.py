"""The values of a run's log, which stay on their device until a line of the log is due."""
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from mmcv.runner import LogBuffer
from torch import Tensor

from ..distributed.collectives import gather_to_all
from ..errors import some_of

MAX_UNREAD = 1000  # tensors, where nothing logs
Place = tuple[str, int]  # name of a value, and its position in the history of that name


class DeferredLogBuffer(LogBuffer):
    """mmcv's log buffer for values that a GPU has yet to compute.

    To read a number from a GPU, the host waits until the GPU has computed it; the GPU then idles
    until the host has sent the next operations. Tensors are therefore kept as they are, and read
    when a line of the log is due: in one transfer, after one reduction over the ranks.
    """

    def __init__(self):
        super().__init__()
        self._unread: dict[bool, list[Place]] = {True: [], False: []}  # by mean_over_ranks

    def update(self, vars: Mapping[str, float | Tensor], count: int = 1,
               mean_over_ranks: bool = False) -> None:
        """Adds the values of an iteration.

        Args:
            vars: Numbers, or tensors of one element, by name.
            count: Weight of the values in a mean over iterations.
            mean_over_ranks: Whether the tensors are those of this rank, and their mean over the
                ranks is to be logged. All ranks then call this with the same names.
        """
        super().update(dict(vars), count)
        unread = self._unread[mean_over_ranks]
        unread += [(name, len(self.val_history[name]) - 1) for name, value in vars.items()
                   if isinstance(value, Tensor)]
        if len(unread) >= MAX_UNREAD:
            self.read()

    def average(self, n: int = 0) -> None:
        """Averages the latest ``n`` values of each name, 0 for all; called on all ranks."""
        self.read()
        super().average(n)

    def clear(self) -> None:
        """Drops all values."""
        for places in self._unread.values():
            places.clear()
        super().clear()

    def read(self) -> None:
        """Replaces all tensors by their values; called on all ranks.

        Raises:
            RuntimeError: If the ranks have values of different names.
        """
        read_together([self])


def read_together(buffers: Sequence[DeferredLogBuffer]) -> None:
    """Replaces the tensors of several buffers by their values; called on all ranks.

    Raises:
        RuntimeError: If the ranks have values of different names.
    """
    for mean_over_ranks in (True, False):
        by_device: dict[torch.device, list[tuple[str, list, int]]] = {}
        for buffer in buffers:
            for name, i in buffer._unread[mean_over_ranks]:
                history = buffer.val_history[name]
                by_device.setdefault(history[i].device, []).append((name, history, i))
            buffer._unread[mean_over_ranks].clear()
        for own in by_device.values():
            values = torch.stack([history[i].detach().float().reshape(()) for _, history, i in own])
            if mean_over_ranks:
                _take_mean(values, [name for name, *_ in own])
            for (_, history, i), value in zip(own, values.tolist()):
                history[i] = value


def _take_mean(values: Tensor, names: list[str]) -> None:
    """Replaces values (N,) of this rank by their means over the ranks."""
    everywhere = gather_to_all(names)
    if len(everywhere) == 1:
        return
    if any(other != names for other in everywhere):  # else the ranks would wait for each other
        raise RuntimeError('the losses of the processes have different names: ' + '; '.join(
            f'rank {rank}: {some_of(sorted(set(own)))} ({len(own)} values)'
            for rank, own in enumerate(everywhere)))
    dist.all_reduce(values.div_(len(everywhere)))
