"""Hooks of the mmcv runner."""
import torch
from mmcv.runner import HOOKS, BaseRunner, Hook
from mmseg.core import DistEvalHook, EvalHook

from ..distributed.parallelize import unwrap
from ..distributed.precision import apply_precision


class _PrecisionHook(Hook):
    """Applies the precision policy before the first iteration.

    Our own tools have applied it by then, before the optimizer and DDP were built; mmseg's tools
    have not.
    """

    dtype: torch.dtype

    def before_run(self, runner: BaseRunner) -> None:
        """Stores and computes as :mod:`mmseg_custom.distributed.precision` says."""
        apply_precision(unwrap(runner.model), self.dtype)


@HOOKS.register_module()
class ToBFloat16Hook(_PrecisionHook):
    """The backbone computes in bfloat16, the heads in float32; trained weights stay float32."""

    dtype = torch.bfloat16


@HOOKS.register_module()
class ToFloat16Hook(_PrecisionHook):
    """The backbone computes in float16, the heads in float32; trained weights stay float32.

    Meant for frozen backbones on GPUs without bfloat16: gradients are not scaled.
    """

    dtype = torch.float16


class _PlainScores:
    """Keeps the best score as a float, and absent classes out of the log.

    PyTorch from 2.6 on loads checkpoints with ``weights_only=True``, which refuses numpy scalars:
    with a numpy score no later checkpoint could be read.
    """

    def evaluate(self, runner: BaseRunner, results: list) -> float | None:
        """Returns the score of the key indicator."""
        score = super().evaluate(runner, results)
        output = runner.log_buffer.output
        for name in [name for name, value in output.items() if value != value]:
            del output[name]  # NaN: the class is neither in the truth nor in the predictions
        return None if score is None else float(score)


class SegEvalHook(_PlainScores, EvalHook):
    """Evaluates in one process."""


class SegDistEvalHook(_PlainScores, DistEvalHook):
    """Evaluates in all processes of the group."""
