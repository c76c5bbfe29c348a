"""An iteration of all heads of a round: some of them together, the others in turns."""
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from mmseg.utils import get_root_logger

from ..divergence import Diverged
from .head_group import group_heads
from .losses import LossReader
from .probe import IterationBatches, Probe
from .records import write_result


class HeadSteps:
    """Takes the heads of a round through an iteration.

    Args:
        probes: Heads of the round, whose hooks before the first iteration have been called.
        batched: Whether heads are trained together where possible.

    Attributes:
        reader: Reader of their losses.
    """

    def __init__(self, probes: Sequence[Probe], batched: bool):
        self.reader = LossReader()
        self._groups = group_heads(probes) if batched else []
        self._together = {probe for group in self._groups for probe in group.probes}
        if self._groups:
            get_root_logger().info('sweep: %d of %d head(s) are trained together, in %d group(s)',
                                   len(self._together), len(probes), len(self._groups))

    def step(self, probes: Sequence[Probe], batches: IterationBatches) -> list[Probe]:
        """Trains heads for one iteration; returns those that go on."""
        faults: dict[Probe, Diverged] = {}
        for group in self._groups:
            faults.update(group.step(batches, [probe for probe in group.probes if probe in probes]))

        def train(probe: Probe) -> None:
            if probe in faults:
                raise faults[probe]
            if probe not in self._together:
                probe.step(batches)

        left = [probe for probe in probes if goes_on(probe, partial(train, probe))]
        late = self.reader.exchange(left)
        return [probe for probe in left if probe not in late
                or goes_on(probe, partial(_raise, late[probe]))]


def _raise(error: Diverged) -> NoReturn:
    raise error


def goes_on(probe: Probe, action: Callable[[], None]) -> bool:
    """Runs an action of a head; returns False if the head has diverged."""
    try:
        action()
    except Diverged as error:
        runner = probe.runner
        get_root_logger().error('%s is stopped, the others train on: %s; its checkpoints, if it '
                                'has any, are of earlier iterations; try a smaller learning rate',
                                probe.name, error.fault)
        runner.logger.error('stopped: %s', error.fault)
        write_result(probe.run.work_dir, state='diverged', iterations=runner.iter,
                     reason=error.fault, run=probe.run.identity)
        probe.close()
        return False
    return True
