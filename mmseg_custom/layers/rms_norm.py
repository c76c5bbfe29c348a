"""RMSNorm (Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019), fast on the CPU too.

N tokens, D width.

On a GPU torch has one kernel for it. On the CPU torch goes over the tokens once for each of seven
operations, in float32 tensors that are twice as large as bfloat16 tokens and leave the cache
between two of them. :func:`in_strips` does the same operations on a few rows at a time, so that
they stay in the cache. Rows do not depend on each other, so all bits are torch's, those of the
gradients as well.
"""
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

STRIP = 2 ** 18  # values of a thread: 1 MB in float32, so that two lie in a core's own cache


class RMSNorm(nn.RMSNorm):
    """torch's RMSNorm: in strips on the CPU, and exported to ONNX either way.

    The exporter that traces (``torch.onnx.export(..., dynamo=False)``) does not know the operator.
    Its part can go with that exporter.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        if torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():
            eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
            unit = x.float() * (x.float().pow(2).mean(-1, keepdim=True) + eps).rsqrt()
            return (unit * self.weight.float()).to(x.dtype)
        if not torch.compiler.is_compiling() and self.eps is not None and _pays(x):
            return in_strips(x, self.weight, self.eps)
        return super().forward(x)


def _pays(x: Tensor) -> bool:
    """Returns whether a tensor leaves the cache of a CPU; fake tensors and the like do not."""
    return (type(x) is Tensor and x.device.type == 'cpu' and x.numel() > STRIP
            and x.stride(-1) == 1 and not torch.jit.is_tracing())


def in_strips(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Computes torch's RMSNorm on the CPU, with gradients, a strip of rows at a time.

    Args:
        x: Tokens (..., D) whose values lie side by side in memory.
        weight: Factors (D,).
        eps: Number that is added to the mean square.

    Returns:
        (..., D), contiguous.
    """
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _InStrips.apply(x, weight, eps)
    return _forward(x, weight, eps)[0]


def _forward(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Returns the norm of ``x``, and one over the root mean square of its rows (N, 1)."""
    rows = x.flatten(0, -2)  # (N, D)
    out = torch.empty(rows.shape, dtype=x.dtype)
    scales = torch.empty(len(rows), 1, dtype=_accumulated_in(x))
    strips = list(_strips(rows))
    values, squares = (torch.empty_like(rows[strips[0]], dtype=scales.dtype) for _ in range(2))
    for strip in strips:
        unit = values[:len(rows[strip])].copy_(rows[strip])
        square = torch.pow(unit, 2, out=squares[:len(unit)])
        scale = torch.mean(square, -1, keepdim=True, out=scales[strip]).add_(eps).rsqrt_()
        out[strip] = unit.mul_(scale).mul_(weight)
    return out.view(x.shape), scales


class _InStrips(torch.autograd.Function):
    """See :func:`in_strips`; between the passes it keeps its input and a number for each row."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out, scales = _forward(x, weight, eps)
        ctx.save_for_backward(x, weight, scales)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, scales = ctx.saved_tensors
        rows, grads = x.flatten(0, -2), grad.flatten(0, -2)  # (N, D)
        of_x = torch.empty(rows.shape, dtype=x.dtype) if ctx.needs_input_grad[0] else None
        # Summed up over the rows at the end, in torch's order.
        of_weight = (torch.empty(rows.shape, dtype=scales.dtype) if ctx.needs_input_grad[1]
                     else None)
        strips = list(_strips(rows))
        buffers = [torch.empty_like(rows[strips[0]], dtype=scales.dtype) for _ in range(3)]
        for strip in strips:
            value, upper, product = (buffer[:len(rows[strip])] for buffer in buffers)
            value.copy_(rows[strip])
            upper.copy_(grads[strip])
            scale = scales[strip]
            if of_weight is not None:
                torch.mul(upper, torch.mul(value, scale, out=product), out=of_weight[strip])
            if of_x is not None:
                upper.mul_(weight)
                of_scale = torch.mul(upper, value, out=product).sum(-1, keepdim=True)
                of_mean = -0.5 * of_scale * scale.pow(3)
                value.mul_(of_mean / x.shape[-1] * 2)
                of_x[strip] = upper.mul_(scale).add_(value)
        return (None if of_x is None else of_x.view(x.shape),
                None if of_weight is None
                else of_weight.view(x.shape).sum_to_size(weight.shape).to(weight.dtype), None)


def _accumulated_in(x: Tensor) -> torch.dtype:
    """Returns the dtype of the statistics: float32, or float64 for such tokens."""
    return torch.promote_types(x.dtype, torch.float32)


def _strips(rows: Tensor) -> Iterator[slice]:
    """Yields strips of the rows of (N, D), of the same number of rows but for the last one."""
    step = max(1, STRIP * torch.get_num_threads() // rows.shape[1])
    for start in range(0, len(rows), step):
        yield slice(start, min(start + step, len(rows)))
