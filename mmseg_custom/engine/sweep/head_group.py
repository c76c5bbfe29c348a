"""Heads of a sweep that are trained together: linear ones that read the same feature maps.

The heads keep their models, runners, logs and checkpoints. In an iteration of a group, their hooks
before it are called, then the group computes losses and gradients of all heads and takes the steps
of their optimizers, then their hooks after it are called.

G heads, P parameters of a head.
"""
import json
import math
from collections.abc import Mapping, Sequence

import torch
from mmcv.runner import OptimizerHook
from mmcv.runner.hooks import LoggerHook
from mmseg.models.segmentors import EncoderDecoder
from torch import Tensor

from ...distributed.collectives import mean_over_ranks
from ...distributed.parallelize import unwrap
from ...models import InternViTSegmentor
from ..divergence import Diverged, largest_lr
from ..hooks import SegOptimizerHook
from ..log_buffer import read_together
from .adamw import AdamWSteps, can_step_together
from .linear_heads import LinearHeads, is_linear
from .probe import IterationBatches, Probe
from .probe_runner import LossHook, divergence_of


class HeadGroup:
    """Trains several heads together; each ends where it would alone, up to rounding.

    Args:
        probes: Heads of the same kind: see :func:`group_heads`. Their hooks before the first
            iteration have been called.

    Attributes:
        probes: The heads, also those that have been stopped.
    """

    def __init__(self, probes: Sequence[Probe]):
        self.probes = list(probes)
        self._steps = AdamWSteps()
        for probe in probes:  # The group does what these hooks do.
            runner = probe.runner
            runner._hooks = [hook for hook in runner.hooks
                             if not isinstance(hook, (OptimizerHook, LossHook))]

    def step(self, batches: IterationBatches, probes: Sequence[Probe]) -> dict[Probe, Diverged]:
        """Trains heads for one iteration.

        Args:
            batches: Batches of the iteration, with the feature maps of all layers.
            probes: Heads of the group that are trained.

        Returns:
            Heads that have diverged, with the error that says why. Losses of the CPU are checked
            before the optimizers' steps, those of a GPU later: see :class:`.losses.LossReader`.
        """
        if not probes:
            return {}
        for probe in probes:
            probe.runner.begin(batches)
        heads = LinearHeads([unwrap(probe.model).decode_head for probe in probes])
        values, gradients = _gradients(heads, batches.read_by(probes[0].positions))
        faults: dict[Probe, Diverged] = {}
        if values.is_cuda:
            losses, accuracies = (part.unbind() for part in values)
            gradients.masked_fill_(~values[0].isfinite()[:, None], 0)  # keeps NaN out of weights
        else:
            losses, accuracies = values.tolist()
            faults = _faults(probes, losses)
        heads.assign_gradients(gradients)
        trained = [probe for probe in probes if probe not in faults]
        self._steps.step([probe.runner.optimizer for probe in trained])
        name = heads.heads[0].loss_decode.loss_name
        for probe, loss, accuracy in zip(probes, losses, accuracies):
            probe.loss = loss
            probe.runner.log_values(
                {f'decode.{name}': loss, 'decode.acc_seg': accuracy, 'loss': loss},
                batches.samples)
        return {**faults, **_end(trained)}


def group_heads(probes: Sequence[Probe]) -> list[HeadGroup]:
    """Groups the heads that can be trained together; the others are trained alone."""
    kinds: dict[str, list[Probe]] = {}
    for probe in probes:
        if _can_be_grouped(probe):
            kind = json.dumps(probe.run.cfg.model, sort_keys=True, default=str)
            kinds.setdefault(kind, []).append(probe)
    return [HeadGroup(members) for members in kinds.values() if len(members) > 1]


def _can_be_grouped(probe: Probe) -> bool:
    """Returns whether a head is linear, and its optimizer plain AdamW without clipping."""
    model = unwrap(probe.model)
    hooks = [hook for hook in probe.runner.hooks if isinstance(hook, OptimizerHook)]
    return (type(model) in (EncoderDecoder, InternViTSegmentor) and not model.with_auxiliary_head
            and not any(True for _ in model.backbone.parameters())  # no feature pyramid
            and is_linear(model.decode_head) and can_step_together(probe.runner.optimizer)
            and [type(hook) for hook in hooks] == [SegOptimizerHook]
            and hooks[0].grad_clip is None and not hooks[0].detect_anomalous_params
            and probe.run.cfg.get('momentum_config') is None)


def _gradients(heads: LinearHeads, batches: Sequence[dict]) -> tuple[Tensor, Tensor]:
    """Computes losses and accuracies (2, G) and gradients (G, P), means over all images."""
    weights = heads.weights().requires_grad_()
    values = weights.new_zeros(2, len(heads.heads))
    for batch in batches:
        found = heads.losses(weights, batch['feats'], batch['gt_semantic_seg'])
        (found[0].sum() / len(batches)).backward()
        values += torch.stack(found).detach() / len(batches)
    assert weights.grad is not None
    return mean_over_ranks(values), mean_over_ranks(weights.grad)


def _faults(probes: Sequence[Probe], losses: Sequence[float]) -> dict[Probe, Diverged]:
    """Returns the heads whose loss is NaN or infinite."""
    return {probe: divergence_of(loss, probe.runner.iter + 1, largest_lr(probe.runner))
            for probe, loss in zip(probes, losses)
            if probe.losses.stops and not math.isfinite(loss)}


def _end(probes: Sequence[Probe]) -> Mapping[Probe, Diverged]:
    """Calls the hooks of heads after an iteration; returns those that have diverged."""
    if probes and _logs(probes[0]):  # else each would wait for the GPU to read its own values
        read_together([probe.runner.log_buffer for probe in probes])
    faults = {}
    for probe in probes:
        try:
            probe.runner.end()
        except Diverged as error:
            faults[probe] = error
    return faults


def _logs(probe: Probe) -> bool:
    """Returns whether a line of the log is due in this iteration."""
    runner = probe.runner
    return any(isinstance(hook, LoggerHook) and (hook.every_n_iters(runner, hook.interval)
                                                 or hook.is_last_iter(runner))
               for hook in runner.hooks)
