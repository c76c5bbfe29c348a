"""Low-rank adapters of trained networks without the library peft: what :mod:`.lora` computes.

    y = W x + b + alpha / r * B A x

The steps and their order are those of peft's layer in eval mode, so that the results have its bits;
W stays as it is, since merging and rounding it to bfloat16 would lose most of what adapters change.
Tensors have the names that they have in checkpoints.

I inputs, O outputs, r rank.
"""
import torch
from torch import Tensor, nn

from .lora import NAME, LoraOptions, hide_base_layer, linear_names
from .quantized_linear import QuantizedLinear


class PlainLora(nn.Module):
    """A linear layer with an adapter beside it, for inference.

    Args:
        base_layer: The layer, with weights of floating point or of 8 bits.
        options: Rank and factor; whether rows are scaled to trained norms, too (DoRA).
    """

    def __init__(self, base_layer: nn.Linear | QuantizedLinear, options: LoraOptions):
        super().__init__()
        self.base_layer = base_layer
        self.scaling = options.alpha / options.r
        self.lora_A = nn.ModuleDict({NAME: nn.Linear(base_layer.in_features, options.r, False)})
        self.lora_B = nn.ModuleDict({NAME: nn.Linear(options.r, base_layer.out_features, False)})
        self.lora_magnitude_vector = nn.ModuleDict(
            {NAME: _Norms(base_layer.out_features)} if options.use_dora else {})
        hide_base_layer(self)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O), in the dtype of the layer's own result."""
        result = self.base_layer(x)
        x = x.to(self.lora_A[NAME].weight.dtype)
        added = self.lora_B[NAME](self.lora_A[NAME](x))
        if not self.lora_magnitude_vector:
            return (result + added * self.scaling).to(result.dtype)
        norms = self.lora_magnitude_vector[NAME].weight
        scale = (norms / self._norms(x.dtype)).view(1, -1)
        bias = self.base_layer.bias
        without_bias = result if bias is None else result - bias
        change = (scale - 1) * without_bias + scale * added * self.scaling
        return (result + change).to(result.dtype)

    def _norms(self, dtype: torch.dtype) -> Tensor:
        """Returns the norms (O,) of the rows of W + alpha / r * B A, computed in a dtype."""
        a, b = self.lora_A[NAME], self.lora_B[NAME]
        ones = torch.eye(a.in_features, device=a.weight.device, dtype=a.weight.dtype)
        weight = self.base_layer.weight.to(dtype) + self.scaling * b(a(ones)).T.to(dtype)
        return torch.linalg.norm(weight, dim=1).to(dtype)


class _Norms(nn.Module):
    """Trained norms (O,) of the rows, of DoRA."""

    def __init__(self, out_features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(out_features))


def add_plain_lora(module: nn.Module, options: LoraOptions) -> None:
    """Puts adapters without values around linear layers of a module.

    Args:
        module: Block, or another module with linear layers.
        options: Options; a target is the name of a layer, as a whole or its last part.
    """
    for name in linear_names(module):
        if any(f'.{name}'.endswith(f'.{target}') for target in options.targets):
            owner, _, leaf = name.rpartition('.')
            parent, layer = module.get_submodule(owner), module.get_submodule(name)
            with layer.weight.device:
                setattr(parent, leaf, PlainLora(layer, options))

