"""Linear layers of a frozen network whose weights have 8 bits, with a scale for each output.

    weights alone        y = x W^T + b, with W = values * scales in the dtype of x
    weights and tokens   y = (values(x) values(W)^T) * scales(x) * scales(W)^T + b

The second form is the GPU's product in int8 or fp8 (e4m3), with a scale for each token too.
Elsewhere only memory is saved. Rows share a scale as in Dettmers et al., "LLM.int8()", 2022; e4m3
is that of Micikevicius et al., "FP8 formats for deep learning", 2022.

Gradients go to the input alone, for trained parts before a layer and beside it (LoRA):

    dx = dy W      with W dequantized again, so that autograd keeps the 8 bits and the scales

Where tokens are rounded, that is the gradient of the first form. It takes their rounding for the
identity, a straight-through estimator (Bengio et al., "Estimating or propagating gradients through
stochastic neurons for conditional computation", 2013).

N tokens, I inputs, O outputs.
"""
import torch
from torch import Tensor, nn
from torch.nn import functional as F

DTYPES = dict(int8=torch.int8, fp8=torch.float8_e4m3fn)
# Bits of fp8 are stored as whole numbers, which casts of a network, collectives and files leave
# alone.
STORED = dict(int8=torch.int8, fp8=torch.uint8)
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
SCALE = '_scale'
ROWS_AT_ONCE = 256  # that are rounded, whose float32 values take 13 MB at 12800 inputs
LEAST_TOKENS = 17  # of a GPU's product in int8
MULTIPLE = 16  # of I and O in a GPU's products of 8 bits
CAPABILITY = dict(int8=(8, 0), fp8=(9, 0))  # least of a GPU, in torch 2.6 to 2.11


def quantize_rows(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rounds rows to 8 bits.

    Scales have 8 significant bits, so that values times scales are exact in float32, and are
    rounded to the same values and scales again.

    Args:
        x: (..., I), floating point.
        dtype: One of ``DTYPES``.

    Returns:
        Values (..., I), and scales (..., 1) in float32; their product approximates the rows.
    """
    largest = LARGEST[dtype]
    scales = torch.linalg.vector_norm(x, float('inf'), -1, keepdim=True, dtype=torch.float32)
    scales = (scales / largest).clamp_(min=1e-12).bfloat16().float()
    values = x / scales  # float32
    if dtype == torch.int8:
        values = values.round_()
    return values.clamp_(-largest, largest).to(dtype), scales


def dequantize(weight: Tensor, scales: Tensor, kind: str, dtype: torch.dtype) -> Tensor:
    """Returns weights in a dtype of floating point.

    Args:
        weight: (O, I), as :class:`QuantizedLinear` stores them.
        scales: (O, 1), float32.
        kind: 'int8' or 'fp8'.
        dtype: Dtype of the result.
    """
    exact = torch.float32 if dtype == torch.float16 else dtype  # whose range scales exceed
    if kind == 'fp8':  # ONNX knows no views of another dtype, and int8 needs none
        weight = weight.view(DTYPES[kind])
    return weight.to(exact).mul_(scales.to(exact)).to(dtype)


def has_product(kind: str, device: torch.device) -> bool:
    """Returns whether a device has a product in 8 bits that is worth rounding tokens for.

    CPUs have none: on one of 2 cores with AMX, a product of 512 x 3200 by 3200 x 3200 took 27 ms in
    int8, 27 ms on weights that were converted to bfloat16 before it, and 19 ms on bfloat16 ones
    (one thread, 2026-11-26); the second needs no rounded tokens.
    """
    return device.type == 'cuda' and torch.cuda.get_device_capability(device) >= CAPABILITY[kind]


class QuantizedLinear(nn.Module):
    """A linear layer with frozen weights of 8 bits.

    Weights of floating point that are loaded into it are rounded, first to bfloat16, as those of
    other layers are. So a network that is built on the meta device never holds them all.

    Args:
        in_features: I.
        out_features: O.
        bias: Whether there is a bias.
        kind: 'int8' or 'fp8'.

    Attributes:
        weight: (O, I), in 8 bits: int8, or the bits of e4m3 as uint8.
        weight_scale: (O, 1), float32.
        rounds_tokens: Whether tokens are rounded too, for a product in 8 bits.
        has_product: :func:`has_product`; the doctor assumes another device.
    """
    has_product = staticmethod(has_product)

    def __init__(self, in_features: int, out_features: int, bias: bool, kind: str):
        super().__init__()
        self.in_features, self.out_features, self.kind = in_features, out_features, kind
        self.weight = nn.Parameter(torch.zeros(out_features, in_features, dtype=STORED[kind]),
                                   requires_grad=False)
        self.weight_scale: Tensor
        self.register_buffer('weight_scale', torch.ones(out_features, 1, dtype=torch.float32))
        self.bias = (nn.Parameter(torch.zeros(out_features), requires_grad=False) if bias
                     else None)
        self.rounds_tokens = False

    @classmethod
    def of(cls, linear: nn.Linear, kind: str) -> 'QuantizedLinear':
        """Returns the layer with the rounded weights of a linear layer, on its device."""
        with linear.weight.device:
            made = cls(linear.in_features, linear.out_features, False, kind)
        if linear.bias is not None:
            made.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
        if not linear.weight.is_meta:
            made.store(linear.weight)
        return made

    @torch.no_grad()
    def store(self, weight: Tensor) -> None:
        """Rounds weights (O, I), and keeps them on the layer's device; on meta, on theirs."""
        device = weight.device if self.weight.is_meta else self.weight.device
        # Kept before strips come and go, so that memory is not fragmented.
        values = torch.empty(weight.shape, dtype=STORED[self.kind], device=device)
        scales = torch.empty(len(weight), 1, dtype=torch.float32, device=device)
        for start in range(0, len(weight), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            rounded, scales[rows] = quantize_rows(
                weight[rows].detach().to(device, torch.bfloat16), DTYPES[self.kind])
            values[rows] = rounded.view(STORED[self.kind])
        self.weight_scale = scales
        self.weight = nn.Parameter(values, requires_grad=False)
        self._choose_product()

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """Returns the weights (O, I) in a dtype of floating point."""
        return dequantize(self.weight, self.weight_scale, self.kind, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O), in the dtype of the input."""
        rows = x.reshape(-1, self.in_features)
        in_8_bits = self.rounds_tokens and len(rows) >= LEAST_TOKENS
        multiply = (_TokenGradient.apply if rows.requires_grad and torch.is_grad_enabled()
                    else _multiply)
        out = multiply(rows, self.weight, self.weight_scale, self.bias, self.kind, in_8_bits)
        return out.view(*x.shape[:-1], self.out_features)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """Rounds weights of floating point in a state dict, whose file has no scales."""
        weight = state_dict.get(f'{prefix}weight')
        if weight is not None and weight.is_floating_point():
            self.store(weight)
            state_dict = {**state_dict, f'{prefix}weight': self.weight,
                          f'{prefix}weight{SCALE}': self.weight_scale}
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _apply(self, fn, recurse: bool = True):
        """Moves the layer, as ``to()`` does, and chooses its product anew."""
        super()._apply(fn, recurse)
        self.weight_scale = self.weight_scale.float()  # whatever the network is cast to
        self._choose_product()
        return self

    def _choose_product(self) -> None:
        fits = self.in_features % MULTIPLE == self.out_features % MULTIPLE == 0
        self.rounds_tokens = fits and self.has_product(self.kind, self.weight.device)


def _multiply(rows: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, kind: str,
              in_8_bits: bool) -> Tensor:
    """(N, I) -> (N, O), in the dtype of the rows.

    Args:
        rows: Tokens.
        weight: (O, I), as stored.
        scales: (O, 1), of the weight.
        bias: (O,), or None.
        kind: 'int8' or 'fp8'.
        in_8_bits: Whether the rows are rounded too, for a product in 8 bits.
    """
    if in_8_bits:
        out = _product_in_8_bits(rows, weight, scales, kind)
        return (out if bias is None else out + bias).to(rows.dtype)
    bias = None if bias is None else bias.to(rows.dtype)
    return F.linear(rows, dequantize(weight, scales, kind, rows.dtype), bias)


def _product_in_8_bits(rows: Tensor, weight: Tensor, scales: Tensor, kind: str) -> Tensor:
    """(N, I) -> (N, O), in float32 for int8 and in bfloat16 for fp8; see :func:`_multiply`."""
    values, token_scales = quantize_rows(rows, DTYPES[kind])
    if kind == 'int8':
        return torch._int_mm(values, weight.T) * token_scales * scales.T
    return torch._scaled_mm(values, weight.view(DTYPES[kind]).T, scale_a=token_scales,
                            scale_b=scales.T, out_dtype=torch.bfloat16, use_fast_accum=True)


class _TokenGradient(torch.autograd.Function):
    """:func:`_multiply` with a gradient of the rows, as the module's docstring has it.

    Autograd would keep the dequantized weight for it.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, kind: str,
                in_8_bits: bool) -> Tensor:
        """(N, I) -> (N, O)."""
        ctx.save_for_backward(weight, scales)
        ctx.kind = kind
        return _multiply(rows, weight, scales, bias, kind, in_8_bits)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """(N, O) -> (N, I), and None for what is no token."""
        weight, scales = ctx.saved_tensors
        return (gradient @ dequantize(weight, scales, ctx.kind, gradient.dtype), *[None] * 5)


def quantize_linears(module: nn.Module, kind: str) -> nn.Module:
    """Replaces all linear layers within a module; returns the module."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, QuantizedLinear.of(child, kind))
        else:
            quantize_linears(child, kind)
    return module


def quantized_layers(module: nn.Module) -> list[QuantizedLinear]:
    """Returns the layers of 8 bits within a module."""
    return [child for child in module.modules() if isinstance(child, QuantizedLinear)]


def weight_of(name: str) -> str:
    """Returns the name of the weight that a scale belongs to; of other tensors, their own."""
    return name.removesuffix(SCALE) if name.endswith(f'.weight{SCALE}') else name
