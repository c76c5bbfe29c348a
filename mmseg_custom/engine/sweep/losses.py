"""Reads the losses of all heads of a sweep: in one transfer an iteration, one iteration late."""
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..copies import HostCopy
from ..divergence import Diverged, largest_lr
from .probe import Probe
from .probe_runner import divergence_of


@dataclass(frozen=True)
class _Sent:
    """Losses of an iteration on their way to the host."""
    iteration: int
    probes: list[Probe]
    rates: list[float]
    losses: HostCopy


class LossReader:
    """Decides which heads go on, by losses that a GPU has computed.

    While the host waits for the losses of an iteration, the GPU computes the next. Losses that are
    numbers already were checked when they were computed.

    Attributes:
        latest: Losses of the heads that train, as far as they are known.
    """

    def __init__(self):
        self.latest: list[float] = []
        self._sent: _Sent | None = None

    def exchange(self, probes: Sequence[Probe]) -> dict[Probe, Diverged]:
        """Sends the losses of an iteration to the host, and reads those of the one before.

        Args:
            probes: Heads that train, after the iteration; the same on all ranks.

        Returns:
            Heads whose loss was NaN or infinite, with the error that says when.
        """
        before, self._sent = self._sent, _send(probes)
        known = [probe.loss for probe in probes if not isinstance(probe.loss, Tensor)]
        faults = {}
        if before is not None:
            values = before.losses.wait().tolist()
            known += values
            for probe, loss, rate in zip(before.probes, values, before.rates):
                if probe.losses.stops and not math.isfinite(loss):
                    faults[probe] = divergence_of(loss, before.iteration, rate)
        self.latest = known or self.latest
        return faults


def _send(probes: Sequence[Probe]) -> _Sent | None:
    """Starts the copy of the losses that are on a GPU."""
    sent = [(probe, probe.loss) for probe in probes if isinstance(probe.loss, Tensor)]
    if not sent:
        return None
    chosen = [probe for probe, _ in sent]
    return _Sent(chosen[0].runner.iter, chosen, [largest_lr(probe.runner) for probe in chosen],
                 HostCopy(torch.stack([loss for _, loss in sent])))
