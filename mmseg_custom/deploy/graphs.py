"""Graphs beside the weights of an exported segmentor: ``model.onnx`` and ``model.pt2``.

    add_onnx('segmentor')
    Segmentor.from_pretrained('segmentor', runtime='onnx')

H W pixels of a window.
"""
import os

import torch

from .agreement import Agreement
from .aot import check_compiler, export_aot
from .network import WindowNetwork
from .onnx_export import check_libraries, export_onnx
from .program import LEAST_CELLS, check_torch
from .runtimes import AOT, ONNX
from .segmentor import Segmentor, choose_device


def check_graphs(onnx: bool, aot: bool, device: str) -> None:
    """Checks that graphs can be written here, before a folder is.

    Args:
        onnx: Whether :func:`add_onnx` will be called.
        aot: Whether :func:`add_aot` will be.
        device: Its device.

    Raises:
        InputError: If a library, a compiler or the device is missing, or PyTorch is too old.
    """
    if onnx or aot:
        check_torch()
    if onnx:
        check_libraries()
    if aot:
        check_compiler()
        choose_device(device)


def add_onnx(folder: str, dtype: str = 'float32') -> Agreement:
    """Writes the network of an exported segmentor as an ONNX graph into its folder.

    Args:
        folder: Folder that ``tools/export.py`` wrote.
        dtype: Dtype that the backbone computes in, 'float32' or 'float16'.

    Returns:
        How far onnxruntime agrees with PyTorch in that dtype.

    Raises:
        InputError: See :func:`.onnx_export.export_onnx`.
    """
    segmentor = Segmentor.from_pretrained(folder, 'cpu')
    network = WindowNetwork(segmentor.backbone, segmentor.decode_head)
    return export_onnx(network, os.path.join(folder, ONNX), window_size(segmentor, network),
                       getattr(torch, dtype))


def add_aot(folder: str, device: str = 'cpu') -> Agreement:
    """Compiles the network of an exported segmentor for a device, into its folder.

    Args:
        folder: Folder that ``tools/export.py`` wrote.
        device: 'cpu' or 'cuda'.

    Returns:
        How far the package agrees with PyTorch on that device.

    Raises:
        InputError: See :func:`.aot.export_aot`.
    """
    segmentor = Segmentor.from_pretrained(folder, device)
    network = WindowNetwork(segmentor.backbone, segmentor.decode_head)
    return export_aot(network, os.path.join(folder, AOT), window_size(segmentor, network), device)


def window_size(segmentor: Segmentor, network: WindowNetwork) -> tuple[int, int]:
    """Returns the size (H, W) of windows that a graph is traced and checked with.

    That of the segmentor's windows; where these are whole images, of which each has its own size, a
    small one that the network takes.
    """
    if network.only_size is not None:
        return network.only_size
    if segmentor.test_cfg['mode'] == 'slide':
        height, width = segmentor.test_cfg['crop_size']
        return height, width
    return 2 * LEAST_CELLS * network.multiple, 3 * LEAST_CELLS * network.multiple
