"""A network as a graph of ``torch.export``, for windows of any number and size.

B windows, H W pixels of a window, h w cells.
"""
import torch
from torch.export import Dim, ExportedProgram

from ..errors import InputError, words_of
from ..layers.attention import Attention, sdpa
from ..layers.deformable_attention import DeformableAttention, read_points
from .network import WindowNetwork

LOWEST_TORCH = '2.11'  # in which graphs were tried; 2.6 writes no bicubic resizing to ONNX
MOST = 2 ** 15  # windows, or cells along a side
LEAST_CELLS = 4  # along a side: fewer would leave a single cell on the coarsest level of a pyramid


def export_program(network: WindowNetwork, image_size: tuple[int, int]) -> ExportedProgram:
    """Exports a network.

    The graph takes any number of windows, and sides of ``LEAST_CELLS`` times ``network.multiple``
    pixels or more. A network for images of one size is exported for that alone.

    Args:
        network: Network, on the device that the graph is for; with or without values. It attends by
            PyTorch's kernels from now on.
        image_size: Height and width in pixels of the windows that it is traced with.

    Raises:
        InputError: If PyTorch is too old, the size does not fit the network, or ``torch.export``
            cannot follow it.
    """
    check_torch()
    check_size(network, image_size)
    _use_plain_kernels(network)
    device = next(network.parameters()).device
    windows = torch.zeros(2, 3, *image_size, device=device)
    shapes = {0: Dim('batch', min=1, max=MOST)}
    if network.only_size is None:
        shapes.update({axis: network.multiple * Dim(name, min=LEAST_CELLS, max=MOST)
                       for axis, name in ((2, 'rows'), (3, 'columns'))})
    try:
        with torch.no_grad():
            return torch.export.export(network, (windows,), dynamic_shapes=(shapes,), strict=False)
    except Exception as error:  # of torch.export, of what it traces, or of a symbolic size in it
        raise InputError(
            f'{name_of(network)} cannot be exported as a graph for windows of any size '
            f'({words_of(error)}): run it with PyTorch, or have no numbers of cells or images in '
            'its forward pass depend on Python ints') from error


def check_torch() -> None:
    """Checks that PyTorch is new enough to export graphs.

    Raises:
        InputError: If it is not.
    """
    if torch.__version__ < LOWEST_TORCH:
        raise InputError(f'graphs (ONNX, AOTInductor) need PyTorch {LOWEST_TORCH} or newer to be '
                         f'written, and this is {torch.__version__}: pip install -U torch, or run '
                         'the segmentor with PyTorch')


def check_size(network: WindowNetwork, image_size: tuple[int, int]) -> None:
    """Refuses a size of windows that a graph does not take.

    Raises:
        InputError: Naming the size, and what is expected.
    """
    least = LEAST_CELLS * network.multiple
    if network.only_size is not None and tuple(image_size) != tuple(network.only_size):
        expected = '{}x{}, the only size of this backbone'.format(*network.only_size)
    elif any(side % network.multiple or side < least for side in image_size):
        expected = f'multiples of {network.multiple} pixels from {least} on'
    else:
        return
    raise InputError(f'windows of {image_size[0]}x{image_size[1]} pixels: expected {expected}; '
                     'set test_cfg.crop_size to such a size')


def _use_plain_kernels(network: WindowNetwork) -> None:
    """Has attention computed by PyTorch's own operators; graphs hold no others."""
    for module in network.modules():
        if isinstance(module, Attention):
            module.kernel = sdpa
        elif isinstance(module, DeformableAttention):
            module.kernel = read_points


def name_of(network: WindowNetwork) -> str:
    """Returns the classes of a network, for messages."""
    return f'{type(network.backbone).__name__} with {type(network.decode_head).__name__}'
