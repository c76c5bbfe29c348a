"""Initial values of convolutions."""
import math

from torch import nn


def init_by_fan_out(module: nn.Module) -> None:
    """Initialises a convolution as He et al. (2015), over its fan out; leaves other layers."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
