"""A convolution with its norm and its activation, with the parameter names of mmcv's ConvModule.

B batch, C channels, h w grid.
"""
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

Options = Mapping[str, Any]
CONVOLUTIONS: dict[str, type[nn.Module]] = {'Conv': nn.Conv2d, 'Conv2d': nn.Conv2d}
NORMS: dict[str, tuple[str, type[nn.Module]]] = {  # type -> name of the submodule, class
    'BN': ('bn', nn.BatchNorm2d), 'BN2d': ('bn', nn.BatchNorm2d),
    'SyncBN': ('bn', nn.SyncBatchNorm), 'GN': ('gn', nn.GroupNorm), 'LN': ('ln', nn.LayerNorm),
    'IN': ('in', nn.InstanceNorm2d), 'IN2d': ('in', nn.InstanceNorm2d)}
ACTIVATIONS: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in (
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ReLU6, nn.ELU, nn.Sigmoid, nn.Tanh, nn.SiLU,
    nn.GELU)}
NEVER_IN_PLACE = ('PReLU', 'Sigmoid', 'Tanh', 'GELU')
RELU = dict(type='ReLU')


class ConvModule(nn.Module):
    """A 2d convolution, a norm and an activation, of types that torch has.

    Names, order and initial values of the parameters are those of ``mmcv.cnn.ConvModule``, for the
    same state of the random number generator: weights as He et al. (2015), over the fan out.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        kernel_size: Kernel size in cells.
        padding: Padding in cells.
        dilation: Distance of the kernel's cells.
        conv_cfg: Type of the convolution, a key of ``CONVOLUTIONS``, and further options of it.
        norm_cfg: Type of the norm, a key of ``NORMS``, options of it, and ``requires_grad``; None
            for a convolution with a bias and without a norm.
        act_cfg: Type of the activation, a key of ``ACTIVATIONS``, and options of it; None for none.
        inplace: Whether the activation overwrites its input, where its class can.

    Attributes:
        norm_name: Name of the submodule with the norm; None without one.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0,
                 dilation: int = 1, conv_cfg: Options | None = None,
                 norm_cfg: Options | None = None, act_cfg: Options | None = RELU,
                 inplace: bool = True):
        super().__init__()
        kind, options = _split(conv_cfg or dict(type='Conv2d'))
        self.conv = CONVOLUTIONS[kind](in_channels, out_channels, kernel_size, padding=padding,
                                       dilation=dilation, bias=norm_cfg is None, **options)
        self.norm_name: str | None = None
        if norm_cfg is not None:
            self.norm_name, norm = _norm(norm_cfg, out_channels)
            self.add_module(self.norm_name, norm)
        self.with_norm, self.with_activation = norm_cfg is not None, act_cfg is not None
        self._slope: float | None = None  # of the rectifier, where that counts for initial values
        if act_cfg is not None:
            kind, options = _split(act_cfg)
            if kind not in NEVER_IN_PLACE:
                options.setdefault('inplace', inplace)
            if kind == 'LeakyReLU':
                self._slope = options.get('negative_slope', 0.01)
            self.activate = ACTIVATIONS[kind](**options)
        self.init_weights()

    @property
    def norm(self) -> nn.Module | None:
        """The norm, if there is one."""
        return getattr(self, self.norm_name) if self.norm_name is not None else None

    def init_weights(self) -> None:
        """Draws the weights of the convolution, and sets those of the norm to 1."""
        nn.init.kaiming_normal_(self.conv.weight, a=self._slope or 0, mode='fan_out',
                                nonlinearity='relu' if self._slope is None else 'leaky_relu')
        _set(self.conv, bias=0)
        if self.norm is not None:
            _set(self.norm, weight=1, bias=0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, out_channels, h', w')."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return self.activate(x) if self.with_activation else x


def is_of_torch(conv_cfg: Options | None, norm_cfg: Options | None,
                act_cfg: Options | None) -> bool:
    """Returns whether :class:`ConvModule` has all of these types."""
    return all(cfg is None or cfg.get('type') in known for cfg, known in (
        (conv_cfg, CONVOLUTIONS), (norm_cfg, NORMS), (act_cfg, ACTIVATIONS)))


def _split(cfg: Options) -> tuple[str, dict[str, Any]]:
    """Returns the type of a layer, and its other options."""
    options = dict(cfg)
    return options.pop('type'), options


def _norm(cfg: Options, channels: int) -> tuple[str, nn.Module]:
    """Builds a norm; returns it with the name that it has as a submodule."""
    kind, options = _split(cfg)
    trained = options.pop('requires_grad', True)
    name, norm_class = NORMS[kind]
    if kind == 'GN':  # whose first argument is the number of groups
        options['num_channels'] = channels
    norm = norm_class(**options) if kind == 'GN' else norm_class(channels, **options)
    return name, norm.requires_grad_(trained)


def _set(layer: nn.Module, **values: float) -> None:
    """Sets all values of those parameters that a layer has."""
    for name, value in values.items():
        if getattr(layer, name) is not None:
            nn.init.constant_(getattr(layer, name), value)
