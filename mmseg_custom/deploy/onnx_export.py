"""Network -> ONNX, written tensor by tensor and checked by onnxruntime on the spot.

``model.onnx`` holds the graph, and the weights where these are small; else they are in
``model.onnx.data``.
"""
import logging
import os
import shutil
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, words_of
from ..files import PART, flush, make_folder
from ..layers.quantized_linear import quantized_layers
from ..logs import MAIN, quiet
from .agreement import Agreement, check_windows, compare
from .network import WindowNetwork
from .program import export_program, name_of
from .recast import computing_in, dtypes_in, tensors_of, without_values
from .runtimes import OnnxRuntime, import_extra

OPSET = 20  # the first that has GELU
LARGE = 2 ** 28  # bytes of weights from which on they have a file of their own
DTYPES = (torch.float32, torch.float16)  # onnxruntime has no bfloat16 on the CPU to check it with


def export_onnx(network: WindowNetwork, path: str, image_size: tuple[int, int],
                dtype: torch.dtype = torch.float32, large: int = LARGE) -> Agreement:
    """Writes a network as an ONNX graph for windows of any number and size, and checks it.

    The graph computes what the network does where its backbone has the dtype ``dtype``; heads
    compute in float32. Its input 'windows' and its output 'logits' are float32.

    Args:
        network: Network on the CPU, in eval mode.
        path: File ``*.onnx``; a large network has a file of its weights beside it, ``*.onnx.data``.
        image_size: Height and width in pixels of the windows that it will be run at.
        dtype: Dtype of the backbone, float32 or float16.
        large: Least number of bytes of weights that have a file of their own.

    Returns:
        How far onnxruntime agrees with PyTorch in that dtype.

    Raises:
        InputError: If a library is missing, the network cannot be exported, or the graph computes
            something else; no file is written then.
    """
    _check(network, dtype)
    part = path + PART
    shutil.rmtree(part, ignore_errors=True)
    make_folder(part)
    try:
        written = os.path.join(part, os.path.basename(path))
        _write(network, written, image_size, dtype, large)
        windows = check_windows(network, image_size)
        with torch.no_grad():
            reference = computing_in(network, dtype)
            expected = [reference(batch) for batch in windows]
            del reference  # before onnxruntime takes its memory
        found = compare(expected, OnnxRuntime(written), windows)
        found.check(dtype, 'ONNX by onnxruntime')
        _publish(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    logging.getLogger(MAIN).info('%s: %s', path, found)
    return found


def _check(network: WindowNetwork, dtype: torch.dtype) -> None:
    """Refuses what cannot be written, before anything is."""
    if dtype not in DTYPES:
        raise InputError(f'ONNX in {str(dtype).split(".")[-1]}: expected float32 or float16; '
                         'onnxruntime has no bfloat16 on the CPU')
    if any(layer.kind == 'fp8' for layer in quantized_layers(network)):
        raise InputError('ONNX with weights in fp8: they are stored as bits that ONNX does not '
                         "read as numbers: take frozen_dtype='int8', or none")
    check_libraries()


def check_libraries() -> None:
    """Checks that what writes and runs ONNX is installed.

    Raises:
        InputError: Naming the library that is not.
    """
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        import_extra(name)


def _write(network: WindowNetwork, path: str, image_size: tuple[int, int], dtype: torch.dtype,
           large: int) -> None:
    """Writes graph and weights, of which one tensor at a time is in memory."""
    made = without_values(network, dtype)
    try:
        program: Any = torch.onnx.export(
            export_program(made, image_size), (), dynamo=True, opset_version=OPSET, optimize=False,
            verbose=False, input_names=['windows'], output_names=['logits'])
    except torch.onnx.errors.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # The last one names the operation.
            cause = cause.__cause__
        raise InputError(f'{name_of(network)} has an operation without a counterpart in ONNX '
                         f'({words_of(cause)}): run it with PyTorch') from error
    _set_weights(program.model.graph, network, dtype)
    with quiet('onnxscript', level=logging.ERROR):  # it warns of constants that it does not fold
        program.optimize()
    total = sum(value.const_value.nbytes for value in program.model.graph.initializers.values())
    program.save(path, external_data=total >= large)


def _set_weights(graph: Any, network: WindowNetwork, dtype: torch.dtype) -> None:
    """Gives the weights of a network to its graph, cast and transposed when they are written.

    The graph transposes the weights of linear layers. The optimizer would do this at once, in
    memory, for all of them.
    """
    import onnx_ir as ir  # which onnxscript brings
    tensors, dtypes = tensors_of(network), dtypes_in(network, dtype)
    for name, value in list(graph.initializers.items()):
        if name not in tensors:
            continue
        tensor, kind = tensors[name].detach(), value.const_value.dtype
        to = dtypes[id(tensors[name])]
        value.const_value = _written_later(tensor, to, kind, name)
        for node in value.consumers():
            if node.op_type != 'Transpose':
                continue
            order = node.attributes['perm'].as_ints()
            other = f'{name}.{"".join(map(str, order))}'
            made = _written_later(tensor.permute(*order), to, kind, other)
            turned = ir.Value(name=other, type=value.type, shape=made.shape, const_value=made)
            ir.convenience.replace_all_uses_with(node.outputs[0], turned)
            graph.initializers[other] = turned
            graph.remove(node, safe=True)
        if not value.consumers():
            del graph.initializers[name]


def _written_later(tensor: Tensor, dtype: torch.dtype, kind: Any, name: str) -> Any:
    """Returns a tensor of ONNX that is made when it is written.

    Args:
        tensor: Weight.
        dtype: Dtype that it is cast to.
        kind: ONNX's name of that dtype.
        name: Name of the tensor.
    """
    import onnx_ir as ir
    from onnx_ir.tensor_adapters import TorchTensor
    return ir.LazyTensor(lambda: TorchTensor(tensor.to('cpu', dtype).contiguous(), name),
                         dtype=kind, shape=ir.Shape(tensor.shape), name=name)


def _publish(part: str, path: str) -> None:
    """Moves the files of a folder to their place, the weights first."""
    names = sorted(os.listdir(part), key=len, reverse=True)  # model.onnx.data, model.onnx
    folder = os.path.dirname(os.path.abspath(path))
    for old in (path, f'{path}.data'):  # a graph does not go with the weights of another
        if os.path.exists(old):
            os.remove(old)
    for name in names:
        flush(os.path.join(part, name))
        os.replace(os.path.join(part, name), os.path.join(folder, name))
    flush(folder)
