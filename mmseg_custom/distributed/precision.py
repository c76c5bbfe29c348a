"""The only dtype policy: dtypes that parameters are stored in and that a network computes in.

===================================  ===============  ===============
part                                 stored in        computes in
===================================  ===============  ===============
backbone, frozen                     bfloat16         bfloat16
- its ``frozen_dtype``: products     8 bits, scales   bfloat16 (GPU: 8 bits)
backbone, trained                    float32          bfloat16
heads                                float32          float32
with ``head_precision='bf16'``
- convolutions before the classifier float32          bfloat16
- batch norm                         float32          float32, on maps in bfloat16
- classifier, all other layers, loss float32          float32
===================================  ===============  ===============

with float16 or float32 in the place of bfloat16 where a config says so. Trained weights are float32
master weights because a bfloat16 number has 8 significant bits: an AdamW step of 4e-5 on a weight
of 0.02 is mostly less than half of the last one, and the weight would never move.

A CPU without instructions for bfloat16 would take ten times as long in it as in float32, and some
that have them take twice as long. There the weights are rounded to bfloat16 all the same, one
module at a time, and the arithmetic is float32.
"""
import logging
import time
from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ..errors import InputError
from ..logs import MAIN
from ..models.backbone_options import traits_of
from .casts import ParameterCasts

COMPUTE_DTYPES = dict(bf16=torch.bfloat16, fp16=torch.float16, fp32=torch.float32)
HEAD_DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16)


def apply_precision(model: nn.Module, dtype: torch.dtype | None, device: str | None = None,
                    store: bool = True, master_dtype: torch.dtype = torch.float32,
                    head_dtype: torch.dtype = torch.float32) -> None:
    """Applies the policy to a segmentor; applying it again changes nothing.

    Must come before the optimizer and before any wrapper that looks at parameters (DDP, FSDP2);
    parameters stay the same objects.

    Args:
        model: Segmentor with ``backbone``; everything else in it counts as a head.
        dtype: Dtype of the backbone's weights when it computes; None leaves the backbone as it is,
            and float32 heads too.
        device: 'cuda' or 'cpu', where it will compute; default: where it is.
        store: Whether the backbone's trained weights are converted to ``master_dtype``. False
            leaves them to :func:`store_master_weights`, part by part, as they are sharded.
        master_dtype: Dtype that the backbone's trained weights are stored in; another one than
            float32 is for :mod:`..optim.low_memory`.
        head_dtype: Dtype that the convolutions of heads compute in, float32 or bfloat16.

    Raises:
        InputError: If ``head_dtype`` is not float32 and there is a head that it is not known to go
            with.
    """
    device = device or next(model.backbone.parameters()).device.type
    if dtype is not None:
        arithmetic = _arithmetic_on(device, dtype)
        _apply_to_backbone(model.backbone, dtype, arithmetic, store, master_dtype)
        _log(model, dtype, arithmetic, master_dtype)
    if dtype is not None or head_dtype != torch.float32:
        _apply_to_heads(model, head_dtype, _arithmetic_on(device, head_dtype))


def _apply_to_backbone(backbone: nn.Module, dtype: torch.dtype, arithmetic: torch.dtype,
                       store: bool, master_dtype: torch.dtype) -> None:
    """Stores the backbone's weights in their dtypes, and adds casts where it computes in another.

    See :func:`apply_precision`; ``arithmetic`` is the dtype to compute in on this device.
    """
    for unit in _units(backbone):
        names = []
        for name, parameter in unit.named_parameters(recurse=unit is not backbone):
            if not parameter.is_floating_point():  # 8 bits, see layers/quantized_linear.py
                continue
            stored_in = master_dtype if parameter.requires_grad else dtype
            if parameter.dtype != stored_in and (store or not parameter.requires_grad):
                parameter.data = parameter.data.to(stored_in)
            if not stored_in == dtype == arithmetic:
                names.append(name)
        if (earlier := ParameterCasts.of(unit)) is not None:
            earlier.remove()
        if names:
            ParameterCasts(unit, names, dtype, arithmetic)


def _apply_to_heads(model: nn.Module, dtype: torch.dtype, arithmetic: torch.dtype) -> None:
    """Stores heads in float32; adds casts where their convolutions compute in another dtype.

    The backbone hands on its feature maps in the dtype and memory format of these convolutions.

    Args:
        model: Segmentor.
        dtype: Dtype that the weights of convolutions are rounded to.
        arithmetic: Dtype to compute in on this device.

    Raises:
        InputError: See :func:`apply_precision`.
    """
    casting = False
    for head in heads(model):
        head.float()
        for module in head.modules():
            if (earlier := ParameterCasts.of(module)) is not None:
                earlier.remove()
        if dtype != torch.float32:
            casting |= _cast_layers(head, dtype, arithmetic)
    if hasattr(model.backbone, 'set_map_format'):
        model.backbone.set_map_format(*(
            (arithmetic, torch.channels_last) if casting else ()))
    if dtype != torch.float32:
        logging.getLogger(MAIN).info(
            'head_precision: convolutions of the heads %s', 'are none but the classifier: they '
            'compute in float32' if not casting else _in_words(dtype, arithmetic))


def _cast_layers(head: nn.Module, dtype: torch.dtype, arithmetic: torch.dtype) -> bool:
    """Lets the convolutions of a head compute on casts, channels last; returns whether it has any.

    The classifier is none of them: bfloat16 logits of two classes are often equal. Batch norm takes
    maps of any dtype, with statistics in float32; other layers get theirs in float32. Without
    convolutions before the classifier the whole head computes in float32. A head with a method
    ``layers_to_cast`` names these layers itself.
    """
    if not can_cast(head):
        raise InputError(f"head_precision='bf16' with a {type(head).__name__} as a head: expected "
                         'FCNHead, UPerHead, PlainMaskHead or a head that inherits from '
                         'DecodeHead or UpsampledLoss; leave head_precision out')
    classifier = getattr(head, 'conv_seg', None)
    convolutions = head.layers_to_cast() if hasattr(head, 'layers_to_cast') else [
        module for module in head.modules()
        if isinstance(module, _ConvNd) and module is not classifier]
    for module in head.modules():
        names = [name for name, _ in module.named_parameters(recurse=False)]
        if module in convolutions:
            ParameterCasts(module, names, dtype, arithmetic, torch.channels_last)
        elif names and not (convolutions and isinstance(module, _BatchNorm)):
            ParameterCasts(module, [], torch.float32, torch.float32)
    return bool(convolutions)


def training_dtype(dtype: torch.dtype | None,
                   backbone: nn.Module | None) -> torch.dtype | None:
    """Returns the dtype that a backbone computes in while it is trained.

    Gradients are not scaled here, and those that pass the frozen blocks of a ViT-Adapter would be
    lost in float16, whose least normal number is 6e-5. It is trained in bfloat16, of the same size
    and speed; tests of it compute in float16 where a config says so.
    """
    if dtype != torch.float16 or not traits_of(backbone).changes_tokens:
        return dtype
    return torch.bfloat16


def can_cast(head: nn.Module) -> bool:
    """Returns whether a head is known to work with convolutions that compute in bfloat16."""
    return getattr(head, 'takes_casts', False) or hasattr(head, 'layers_to_cast')


def heads(model: nn.Module) -> Iterator[nn.Module]:
    """Yields the parts of a segmentor other than its backbone, those in lists one by one."""
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList):
            yield from child
        elif name != 'backbone':
            yield child


def store_master_weights(module: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Stores the trained weights of a module and of those inside it in a dtype."""
    for parameter in module.parameters():
        if parameter.requires_grad and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)


@cache
def is_fast_on_cpu(dtype: torch.dtype) -> bool:
    """Returns whether matrix products in ``dtype`` are at least as fast as in float32 on this CPU.

    Measured once in a process, in about 30 ms, where oneDNN has a kernel: what it reports as
    supported may be slower. The seconds are those that a single thread computes, so that other
    work on the machine does not count. Rates differ by factors of two and more in either direction,
    and a resumed run decides alike.
    """
    if dtype == torch.float32:
        return True
    if not (torch.ops.mkldnn._is_mkldnn_bf16_supported() if dtype == torch.bfloat16
            else torch.ops.mkldnn._is_mkldnn_fp16_supported()):
        return False
    return _seconds_of_product(dtype) <= _seconds_of_product(torch.float32)


def _seconds_of_product(dtype: torch.dtype, rows: int = 128, width: int = 1024,
                        repeats: int = 5) -> float:
    """Returns the shortest time of a matrix product, in seconds of one thread of this CPU."""
    x, weight = torch.ones(rows, width, dtype=dtype), torch.ones(width, width, dtype=dtype)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return min(_thread_seconds(partial(nn.functional.linear, x, weight))
                   for _ in range(1 + repeats))
    finally:
        torch.set_num_threads(threads)


def _thread_seconds(step: Callable[[], object]) -> float:
    start = time.thread_time()
    step()
    return time.thread_time() - start


def _arithmetic_on(device: str, dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype to compute in: ``dtype`` where it is fast on the CPUs of all ranks."""
    if device != 'cpu' or dtype == torch.float32:
        return dtype
    fast = torch.tensor(int(is_fast_on_cpu(dtype)))
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(fast, dist.ReduceOp.MIN)
    return dtype if fast else torch.float32


def move_casts_to_fsdp(backbone: nn.Module) -> tuple[torch.dtype | None, bool]:
    """Removes the casts that FSDP2's mixed precision can do.

    Where weights are rounded to one dtype and computed with in another, FSDP2 rounds and gathers
    them, and each module still casts the result and its inputs.

    Returns:
        The dtype that FSDP2 is to cast the parameters to (None leaves them as they are), and
        whether it is to cast inputs too.
    """
    found = [casts for unit in _units(backbone) if (casts := ParameterCasts.of(unit))]
    dtypes = {(casts.dtype, casts.arithmetic) for casts in found}
    if len(dtypes) != 1:
        return None, True
    dtype, arithmetic = dtypes.pop()
    for casts in found if dtype == arithmetic else ():
        casts.remove()
    return dtype, dtype == arithmetic


def _units(module: nn.Module) -> Iterator[nn.Module]:
    """Yields the backbone, for its own parameters, each of its blocks and each other child.

    Lists and dicts of modules are not called; what they hold is.
    """
    if not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        yield module
    for child in module.children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield from _units(child)
        else:
            yield child


def _log(model: nn.Module, dtype: torch.dtype, arithmetic: torch.dtype,
         master_dtype: torch.dtype) -> None:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    stored = str(master_dtype).removeprefix('torch.')
    if master_dtype != torch.float32:
        stored += ' (heads in float32)'
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    rounded = sum(p.numel() for p in model.parameters() if not p.is_floating_point())
    name = str(dtype).removeprefix('torch.')
    logging.getLogger(MAIN).info(
        'precision: the backbone computes %s, the heads in float32; %s trained parameters stored '
        'in %s, %s frozen ones in %s', _in_words(dtype, arithmetic), f'{trained:,}', stored,
        f'{frozen:,}', name if not rounded else f'{name}, {rounded:,} of them in 8 bits')


def _in_words(dtype: torch.dtype, arithmetic: torch.dtype) -> str:
    name = str(dtype).removeprefix('torch.')
    return f'in {name}' if dtype == arithmetic else (
        f'in float32 on weights rounded to {name}, which is slower on this CPU')
