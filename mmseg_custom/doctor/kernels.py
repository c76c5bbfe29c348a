"""The kernels that do the arithmetic of a step: matrix products, convolutions and attention.

Their rates differ by far: on a GPU, PyTorch computes convolutions of float32 tensors in TF32 and
their matrix products in float32. Operations are therefore counted by kind of kernel and dtype, and
the largest call of each is kept, to be measured.
"""
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import flop_registry

from ..layers.resize import is_channels_last

aten = torch.ops.aten


def _flops_of_convolution_backward(*args: Any, out_val: Any = None) -> int:
    """Counts the operations of a convolution's backward pass.

    torch's own formula counts the weight's gradient as if there was one group.
    """
    formula = flop_registry[aten.convolution_backward]
    *settings, groups, (of_input, of_weight, _) = args
    of_input, of_weight = (formula(*settings, groups, mask, out_val=out_val) for mask in (
        (of_input, False, False), (False, of_weight, False)))
    return of_input + of_weight // groups


FLOP_FORMULAS = {  # torch has none for these, whose arguments are the same
    **flop_registry,
    aten.convolution_backward: _flops_of_convolution_backward,
    aten._int_mm: flop_registry[aten.mm],
    aten._scaled_dot_product_flash_attention_for_cpu:
        flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward:
        flop_registry[aten._scaled_dot_product_flash_attention_backward]}
PRODUCT, CONVOLUTION, ATTENTION = 'matrix products', 'convolutions', 'attention'
# Side of a matrix below which a product is limited by the bytes that it moves: an H100 does some
# 300 operations in bfloat16 for each byte, and a product with side r does r for each.
THIN = 128


class Kernel(NamedTuple):
    """A kind of kernels, and the dtype of what they read."""
    kind: str
    dtype: torch.dtype

    def __str__(self) -> str:
        return f'{self.kind} in {str(self.dtype).removeprefix("torch.")}'


@dataclass(frozen=True)
class KernelCall:
    """A call of a kernel, without its tensors.

    Attributes:
        kernel: The kernel.
        flops: Floating-point operations of the call.
        shapes: Shapes of its inputs: (m, k) and (n, k) of a product, the second to be transposed;
            images and weights of a convolution; q, k and v of attention.
        options: Arguments of ``torch.convolution`` that follow the bias.
        channels_last: Whether images or weights of a convolution are stored so.
    """
    kernel: Kernel
    flops: int
    shapes: tuple[tuple[int, ...], ...]
    options: tuple = ()
    channels_last: bool = False

    @property
    def is_thin(self) -> bool:
        """Whether it is a product with a matrix of a few rows or columns, as those of adapters."""
        return self.kernel.kind == PRODUCT and min(*self.shapes[0], *self.shapes[1]) < THIN

    def shrunk(self, flops: float) -> 'KernelCall':
        """Returns a call of fewer rows, images or heads, of about as many operations at most."""
        shapes = [list(shape) for shape in self.shapes]
        # Which axes may be shorter, and down to what; of a product, its many rows suffice.
        axes = {PRODUCT: [(0, 256)], CONVOLUTION: [(0, 1), (2, 32), (3, 32)],
                ATTENTION: [(0, 1), (1, 1)]}[self.kernel.kind]
        now = float(self.flops)
        for axis, least in axes:
            before = shapes[0][axis]
            after = min(before, max(least, int(before * flops / now)))
            for shape in shapes if self.kernel.kind == ATTENTION else shapes[:1]:
                shape[axis] = after
            now *= after / before
        return replace(self, flops=round(now), shapes=tuple(map(tuple, shapes)))

    def tensors(self, device: str) -> list[Tensor]:
        """Draws the inputs."""
        memory_format = torch.channels_last if self.channels_last else torch.preserve_format
        return [torch.randn(shape, device=device).to(self.kernel.dtype, memory_format=memory_format)
                for shape in self.shapes]

    def run(self, tensors: list[Tensor]) -> Tensor:
        """Runs the kernel on its inputs."""
        if self.kernel.kind == ATTENTION:
            q, k, v = tensors
            return F.scaled_dot_product_attention(q, k, v)
        x, weight = tensors
        if self.kernel.kind == CONVOLUTION:
            return torch.convolution(x, weight, None, *self.options)
        if x.dtype == torch.int8:
            return torch._int_mm(x, weight.T)
        if x.dtype == torch.float8_e4m3fn:  # with a scale for each row, as in QuantizedLinear
            scales = [torch.ones(len(each), 1, device=each.device) for each in tensors]
            return torch._scaled_mm(x, weight.T, scales[0], scales[1].T, out_dtype=torch.bfloat16)
        return F.linear(x, weight)


def describe_call(func, args: tuple, flops: int) -> tuple[Kernel, KernelCall | None]:
    """Returns the kernel of an operation with a FLOP formula, and its call if it can be repeated.

    Backward passes of convolutions and attention, and transposed convolutions, are not repeated.
    """
    name, dtype = func._overloadpacket.__name__, args[0].dtype
    if 'convolution' in name or 'conv2d' in name:
        kernel = Kernel(CONVOLUTION, dtype)
        if name == 'convolution' and not args[6]:  # transposed
            return kernel, KernelCall(kernel, flops, _shapes(args[:2]), tuple(args[3:9]),
                                      any(map(is_channels_last, args[:2])))
    elif 'attention' in name:
        kernel = Kernel(ATTENTION, dtype)
        if 'backward' not in name:
            return kernel, KernelCall(kernel, flops, _shapes(args[:3]))
    else:
        kernel = Kernel(PRODUCT, dtype)
        a, b = args[1:3] if 'add' in name else args[:2]
        m, k, n = prod(a.shape[:-1]), a.shape[-1], b.shape[-1]
        return kernel, KernelCall(kernel, flops, ((m, k), (n, k)))
    return kernel, None


def _shapes(tensors: tuple[Tensor, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tensor.shape) for tensor in tensors)
