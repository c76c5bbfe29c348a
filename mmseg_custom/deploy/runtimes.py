"""What runs an exported graph in the place of the network: onnxruntime, or AOTInductor.

B windows, H W pixels of a window, K classes, h w cells of the head's logits.
"""
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, words_of

ONNX, AOT = 'model.onnx', 'model.pt2'  # in the folder of a segmentor
RUNTIMES = ('torch', 'onnx', 'aot')  # choices of Segmentor.from_pretrained
CUDA = 'CUDAExecutionProvider'


class OnnxRuntime:
    """An ONNX graph in onnxruntime: windows (B, 3, H, W) -> float32 logits (B, K, h, w).

    Args:
        path: ``model.onnx``; files of its weights are mapped.
        device: Device to compute on; 'cuda' needs the package onnxruntime-gpu.
        threads: Number of threads on the CPU; default: as many as PyTorch has.

    Raises:
        InputError: If onnxruntime is missing, cannot use the device, or cannot read the file.
    """

    def __init__(self, path: str, device: torch.device | str = 'cpu', threads: int | None = None):
        ort = import_extra('onnxruntime')
        self.device = torch.device(device)
        providers: list[Any] = ['CPUExecutionProvider']
        if self.device.type == 'cuda':
            if CUDA not in ort.get_available_providers():
                raise InputError(f"runtime='onnx' on {self.device}: onnxruntime {ort.__version__} "
                                 'has no CUDA here: install onnxruntime-gpu in its place, or give '
                                 "device='cpu'")
            providers.insert(0, (CUDA, dict(device_id=self.device.index or 0)))
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3  # errors; warnings are of what it cannot fuse
        try:
            self._session = ort.InferenceSession(path, options, providers=providers)
        except Exception as error:  # it has an error class for each of its status codes
            raise InputError(f'{path} is not read by onnxruntime {ort.__version__} '
                             f'({words_of(error)}): export it again') from error
        self._input = self._session.get_inputs()[0].name

    def __call__(self, windows: Tensor) -> Tensor:
        """Computes the logits of windows, on their device."""
        logits, = self._session.run(None, {self._input: windows.float().cpu().numpy()})
        return torch.from_numpy(logits).to(windows.device)


class AotRuntime:
    """A compiled package of AOTInductor: windows (B, 3, H, W) -> float32 logits (B, K, h, w).

    The package is machine code, which loading it runs: load those alone that you trust.

    Args:
        path: ``model.pt2``.
        device: Device to compute on, of the kind that the package was compiled for.

    Raises:
        InputError: If it cannot be read, or was compiled for another kind of device.
    """

    def __init__(self, path: str, device: torch.device | str = 'cpu'):
        self.device = torch.device(device)
        # PyTorch before 2.8 takes no number of a GPU; it loads packages on the current one.
        place: dict[str, Any] = dict(device_index=self.device.index) if self.device.index else {}
        try:
            self._package: Callable = torch._inductor.aoti_load_package(path, **place)
            kind = self._package.get_metadata()['AOTI_DEVICE_KEY']
        except Exception as error:  # of zip files, of the linker, or of another PyTorch
            raise InputError(f'{path} is not read by PyTorch {torch.__version__} '
                             f'({words_of(error)}): packages go with the release that compiled '
                             'them; export it again') from error
        if kind != self.device.type:
            raise InputError(f'{path} was compiled for {kind}, and not for {self.device}: give '
                             f'device={kind!r}, or export it with --device {self.device.type}')

    def __call__(self, windows: Tensor) -> Tensor:
        """Computes the logits of windows, on the device that they must be on."""
        return self._package(windows.float().contiguous())


def open_runtime(kind: str, folder: str, device: torch.device | str,
                 threads: int | None = None) -> Callable[[Tensor], Tensor]:
    """Opens the graph in the folder of a segmentor.

    Args:
        kind: 'onnx' or 'aot'.
        folder: Folder that ``tools/export.py`` wrote with that graph.
        device: Device to compute on.
        threads: Number of threads of onnxruntime on the CPU.

    Returns:
        Function of normalised windows (B, 3, H, W) that returns float32 logits (B, K, h, w).

    Raises:
        InputError: If there is no such graph, or it cannot be run here.
    """
    path = os.path.join(folder, ONNX if kind == 'onnx' else AOT)
    if not os.path.isfile(path):
        raise InputError(f"{path} is not there: export the segmentor with --{kind}, or load it "
                         "with runtime='torch'")
    return OnnxRuntime(path, device, threads) if kind == 'onnx' else AotRuntime(path, device)


def import_extra(name: str) -> Any:
    """Imports a library of the extra ``onnx``.

    Raises:
        InputError: If it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition('.')[0]:
            raise  # one that is broken shows its own error
        raise InputError(f'ONNX needs {name}: pip install "mmseg-custom[onnx]", or onnx, '
                         'onnxscript and onnxruntime') from error
