"""The only dtype policy: dtypes that parameters are stored in and that the backbone computes in.

====================  ===============  ===============
part                  stored in        computes in
====================  ===============  ===============
backbone, frozen      bfloat16         bfloat16
backbone, trained     float32          bfloat16
heads                 float32          float32
====================  ===============  ===============

with float16 or float32 in the place of bfloat16 where a config says so. Trained weights are float32
master weights because a bfloat16 number has 8 significant bits: an AdamW step of 4e-5 on a weight
of 0.02 is mostly less than half of the last one, and the weight would never move.

A CPU without instructions for bfloat16 would take ten times as long in it as in float32, and some
that have them take twice as long. There the weights are rounded to bfloat16 all the same, one
module at a time, and the arithmetic is float32.
"""
import time
from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
import torch.distributed as dist
from mmseg.utils import get_root_logger
from torch import Tensor, nn

COMPUTE_DTYPES = dict(bf16=torch.bfloat16, fp16=torch.float16, fp32=torch.float32)


def apply_precision(model: nn.Module, dtype: torch.dtype | None, device: str | None = None,
                    store: bool = True, master_dtype: torch.dtype = torch.float32) -> None:
    """Applies the policy to a segmentor; applying it again changes nothing.

    Must come before the optimizer and before any wrapper that looks at parameters (DDP, FSDP2);
    parameters stay the same objects.

    Args:
        model: Segmentor with ``backbone``; everything else in it counts as a head.
        dtype: Dtype of the backbone's weights when it computes; None leaves the model as it is.
        device: 'cuda' or 'cpu', where it will compute; default: where it is.
        store: Whether the backbone's trained weights are converted to ``master_dtype``. False
            leaves them to :func:`store_master_weights`, part by part, as they are sharded.
        master_dtype: Dtype that the backbone's trained weights are stored in; another one than
            float32 is for :mod:`..optim.low_memory`.
    """
    if dtype is None:
        return
    backbone = model.backbone
    device = device or next(backbone.parameters()).device.type
    arithmetic = dtype if device != 'cpu' else _arithmetic_on_cpu(dtype)
    for name, child in model.named_children():
        if name != 'backbone':
            child.float()
    for unit in _units(backbone):
        names = []
        for name, parameter in unit.named_parameters(recurse=unit is not backbone):
            stored_in = master_dtype if parameter.requires_grad else dtype
            if parameter.dtype != stored_in and (store or not parameter.requires_grad):
                parameter.data = parameter.data.to(stored_in)
            if not stored_in == dtype == arithmetic:
                names.append(name)
        if (earlier := ParameterCasts.of(unit)) is not None:
            earlier.remove()
        if names:
            ParameterCasts(unit, names, dtype, arithmetic)
    _log(model, dtype, arithmetic, master_dtype)


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


def _arithmetic_on_cpu(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype to compute in: ``dtype`` where it is fast on the CPUs of all ranks."""
    fast = torch.tensor(int(is_fast_on_cpu(dtype)))
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(fast, dist.ReduceOp.MIN)
    return dtype if fast else torch.float32


class ParameterCasts:
    """Forward hooks that let a module compute on casts of its parameters and inputs.

    Each call casts the parameters, as FSDP2's mixed precision does when it gathers them; gradients
    flow back through the cast. The copies live as long as autograd needs them: with activation
    checkpointing, one module's at a time.

    torch's parametrizations would do the same under other parameter names, which are a file
    format. Hooks also stay out of the module's forward, which may be compiled.

    Args:
        unit: Module that is called with tensors.
        names: Its parameters to cast, by their names in the module.
        dtype: Dtype that the parameters are rounded to.
        arithmetic: Dtype that they and the inputs are then computed with.
    """

    def __init__(self, unit: nn.Module, names: list[str], dtype: torch.dtype,
                 arithmetic: torch.dtype):
        self.names, self.dtype, self.arithmetic = names, dtype, arithmetic
        self._stored: list[tuple[nn.Module, str, Tensor]] = []
        # Inside of FSDP2's hooks, which gather the parameters and shard them again.
        self._handles = (unit.register_forward_pre_hook(self._cast),
                         unit.register_forward_hook(self._restore, prepend=True, always_call=True))

    @staticmethod
    def of(unit: nn.Module) -> 'ParameterCasts | None':
        """Returns the casts of a module, if it has any."""
        owners = (getattr(hook, '__self__', None) for hook in unit._forward_pre_hooks.values())
        return next((owner for owner in owners if isinstance(owner, ParameterCasts)), None)

    def remove(self) -> None:
        """Lets the module compute on its parameters themselves."""
        for handle in self._handles:
            handle.remove()

    def _cast(self, unit: nn.Module, inputs: tuple) -> tuple:
        self._restore()  # torch calls no hook after a KeyboardInterrupt in forward
        for name in self.names:
            owner, _, leaf = name.rpartition('.')
            module = unit.get_submodule(owner)
            self._stored.append((module, leaf, module._parameters[leaf]))
        for module, leaf, parameter in self._stored:
            module._parameters[leaf] = parameter.to(self.dtype).to(self.arithmetic)
        return tuple(x.to(self.arithmetic) if torch.is_tensor(x) and x.is_floating_point() else x
                     for x in inputs)

    def _restore(self, *_: object) -> None:
        for module, leaf, parameter in self._stored:
            module._parameters[leaf] = parameter
        self._stored.clear()


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


def _units(backbone: nn.Module) -> Iterator[nn.Module]:
    """Yields the backbone, for its own parameters, each of its blocks and each other child."""
    yield backbone
    for child in backbone.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield child


def _log(model: nn.Module, dtype: torch.dtype, arithmetic: torch.dtype,
         master_dtype: torch.dtype) -> None:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    stored = str(master_dtype).removeprefix('torch.')
    if master_dtype != torch.float32:
        stored += ' (heads in float32)'
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    name = str(dtype).removeprefix('torch.')
    computes = f'in {name}' if dtype == arithmetic else (
        f'in float32 on weights rounded to {name}, which is slower on this CPU')
    get_root_logger().info(
        'precision: the backbone computes %s, the heads in float32; %s trained parameters stored '
        'in %s, %s frozen ones in %s', computes, f'{trained:,}', stored, f'{frozen:,}', name)
