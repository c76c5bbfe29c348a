"""Linear layers of a frozen network whose weights have 8 bits, with a scale for each output.

    weights alone        y = x W^T + b, with W = values * scales in the dtype of x
    weights and tokens   y = (values(x) values(W)^T) * scales(x) * scales(W)^T + b

The second form is the GPU's product in int8 or fp8 (e4m3), with a scale for each token too.
Elsewhere only memory is saved. Rows share a scale as in Dettmers et al., "LLM.int8()", 2022; e4m3
is that of Micikevicius et al., "FP8 formats for deep learning", 2022.

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
        values, self.weight_scale = quantize_rows(weight.detach().to(device, torch.bfloat16),
                                                  DTYPES[self.kind])
        self.weight = nn.Parameter(values.view(STORED[self.kind]), requires_grad=False)
        self._choose_product()

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """Returns the weights (O, I) in a dtype of floating point."""
        exact = torch.float32 if dtype == torch.float16 else dtype  # whose range scales exceed
        return self._values().to(exact).mul_(self.weight_scale.to(exact)).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O), in the dtype of the input."""
        rows = x.reshape(-1, self.in_features)
        if self.rounds_tokens and len(rows) >= LEAST_TOKENS:
            out = self._in_8_bits(rows)
        else:
            bias = None if self.bias is None else self.bias.to(x.dtype)
            out = F.linear(rows, self.dequantized(x.dtype), bias)
        return out.view(*x.shape[:-1], self.out_features)

    def _in_8_bits(self, rows: Tensor) -> Tensor:
        """(N, I) -> (N, O), by a product in 8 bits."""
        values, scales = quantize_rows(rows, DTYPES[self.kind])
        if self.kind == 'int8':
            out = torch._int_mm(values, self.weight.T) * scales * self.weight_scale.T
        else:
            out = torch._scaled_mm(values, self._values().T, scale_a=scales,
                                   scale_b=self.weight_scale.T, out_dtype=torch.bfloat16,
                                   use_fast_accum=True)
        return (out if self.bias is None else out + self.bias).to(rows.dtype)

    def _values(self) -> Tensor:
        return self.weight.view(DTYPES[self.kind])

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
