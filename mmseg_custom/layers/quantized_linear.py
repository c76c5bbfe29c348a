"""Linear layers of a frozen network whose weights have 8 bits, with a scale for each row.

    y = (q(x) @ q(w)^T) * scale(x) * scale(w)^T + b

Weights are rounded when they are stored, with a scale for each output; tokens when they come, with a
scale for each of them. Sums, scales and the result have the precision that they have without it.
Row-wise scales of weights and tokens, as in Dettmers et al., "LLM.int8()", 2022, and Micikevicius et
al., "FP8 formats for deep learning", 2022 (e4m3).

N tokens, I inputs, O outputs.
"""
import torch
from torch import Tensor, nn
from torch.nn import functional as F

DTYPES = dict(int8=torch.int8, fp8=torch.float8_e4m3fn)
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
LEAST_TOKENS = 17  # of a GPU's product in int8
MULTIPLE = 16  # of I and O in products of a GPU


def quantize_rows(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rounds each row to 8 bits.

    Args:
        x: (..., I), floating point.
        dtype: One of ``DTYPES``.

    Returns:
        Values (..., I) and scales (..., 1) in float32, so that values times scales are the rows.
    """
    largest = LARGEST[dtype]
    scales = x.abs().amax(-1, keepdim=True).float().div_(largest).clamp_(min=1e-12)
    values = x / scales  # float32
    if dtype == torch.int8:
        values = values.round_().clamp_(-largest, largest)
    return values.to(dtype), scales


class QuantizedLinear(nn.Module):
    """A linear layer with frozen weights of 8 bits.

    Args:
        in_features: I.
        out_features: O.
        bias: Whether there is a bias.
        kind: 'int8' or 'fp8'.

    Attributes:
        weight: (O, I), in 8 bits.
        weight_scale: (O, 1), float32.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool, kind: str):
        super().__init__()
        self.in_features, self.out_features, self.kind = in_features, out_features, kind
        self.weight = nn.Parameter(torch.zeros(out_features, in_features, dtype=DTYPES[kind]),
                                   requires_grad=False)
        self.weight_scale = nn.Parameter(torch.ones(out_features, 1, dtype=torch.float32),
                                         requires_grad=False)
        self.bias = (nn.Parameter(torch.zeros(out_features), requires_grad=False) if bias
                     else None)

    @classmethod
    def of(cls, linear: nn.Linear, kind: str) -> 'QuantizedLinear':
        """Rounds the weights of a linear layer; on the meta device there are none to round."""
        with linear.weight.device:
            made = cls(linear.in_features, linear.out_features, linear.bias is not None, kind)
        if linear.bias is not None:
            made.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
        if not linear.weight.is_meta:
            made.store(linear.weight.detach())
        return made

    @torch.no_grad()
    def store(self, weight: Tensor) -> None:
        """Rounds weights (O, I) and takes them for its own, on its device (on meta: on theirs)."""
        device = weight.device if self.weight.is_meta else self.weight.device
        values, scales = quantize_rows(weight.to(device), self.weight.dtype)
        self.weight = nn.Parameter(values, requires_grad=False)
        self.weight_scale = nn.Parameter(scales, requires_grad=False)

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """Returns the weights (O, I) in a floating-point dtype."""
        return (self.weight.to(torch.float32) * self.weight_scale).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O), in the dtype of the input."""
        rows = x.reshape(-1, self.in_features)
        if self.kind == 'int8' and _multiplies_int8(rows, self.out_features):
            out = self._in_int8(rows)
        elif self.kind == 'fp8' and _multiplies_fp8(rows, self.out_features):
            out = self._in_fp8(rows)
        else:
            out = F.linear(rows, self.dequantized(x.dtype),
                           None if self.bias is None else self.bias.to(x.dtype))
        return out.view(*x.shape[:-1], self.out_features)

    def _in_int8(self, rows: Tensor) -> Tensor:
        values, scales = quantize_rows(rows, torch.int8)
        out = torch._int_mm(values, self.weight.T) * scales * self.weight_scale.T
        if self.bias is not None:
            out = out + self.bias
        return out.to(rows.dtype)

    def _in_fp8(self, rows: Tensor) -> Tensor:
        values, scales = quantize_rows(rows, self.weight.dtype)
        out = torch._scaled_mm(values, self.weight.T, scale_a=scales, scale_b=self.weight_scale.T,
                               out_dtype=torch.bfloat16)
        out = out if self.bias is None else out + self.bias.to(out.dtype)
        return out.to(rows.dtype)


def _multiplies_int8(rows: Tensor, outputs: int) -> bool:
    """Returns whether torch has a product in int8 for tokens (N, I) on their device."""
    if not rows.is_cuda:
        return True
    return len(rows) >= LEAST_TOKENS and rows.shape[1] % MULTIPLE == outputs % MULTIPLE == 0


def _multiplies_fp8(rows: Tensor, outputs: int) -> bool:
    """Returns whether torch has a product in fp8 with scales for rows on their device."""
    return (rows.is_cuda and torch.cuda.get_device_capability(rows.device) >= (9, 0)
            and rows.shape[1] % MULTIPLE == outputs % MULTIPLE == 0)
