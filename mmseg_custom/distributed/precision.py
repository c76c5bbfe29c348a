"""The only dtype policy: what each parameter is stored in, and what the backbone computes in.

====================  ===============  ===============
part                  stored in        computes in
====================  ===============  ===============
backbone, frozen      bfloat16         bfloat16
backbone, trained     float32          bfloat16
heads                 float32          float32
====================  ===============  ===============

with float16 or float32 in the place of bfloat16 where a config says so. Trained weights keep
float32 because a bfloat16 number has 8 significant bits: an AdamW step of 4e-5 on a weight of 0.02
is mostly less than half of the last one, and the weight never moves.

A CPU without instructions for bfloat16 would take ten times as long in it as in float32. There the
weights are rounded to bfloat16 all the same, one module at a time, and the arithmetic is float32.
"""
from collections.abc import Iterator

import torch
from mmseg.utils import get_root_logger
from timm.layers import DropPath
from torch import Tensor, nn

COMPUTE_DTYPES = dict(bf16=torch.bfloat16, fp16=torch.float16, fp32=torch.float32)


def apply_precision(model: nn.Module, dtype: torch.dtype, device: str | None = None,
                    store: bool = True, masters: torch.dtype = torch.float32) -> None:
    """Applies the policy to a segmentor; applying it again changes nothing.

    Must come before the optimizer and before any wrapper that looks at parameters (DDP, FSDP2);
    parameters stay the same objects.

    Args:
        model: Has ``backbone``; everything else in it counts as a head.
        dtype: Of the backbone's weights when it computes.
        device: 'cuda' or 'cpu', where it will compute; default: where it is.
        store: False leaves the backbone's trained weights in the dtype that they are in, for
            :func:`store_master_weights` to convert part by part, as they are sharded.
        masters: What the backbone's trained weights are stored in; see :mod:`..optim.low_memory`
            for another dtype than float32.
    """
    backbone = model.backbone
    device = device or next(backbone.parameters()).device.type
    arithmetic = dtype if device != 'cpu' or is_fast_on_cpu(dtype) else torch.float32
    for name, child in model.named_children():
        if name != 'backbone':
            child.float()
    for unit in (backbone, *compute_units(backbone)):
        names = (list(unit._parameters) if unit is backbone
                 else [name for name, _ in unit.named_parameters()])
        compute_in(unit, names, dtype, arithmetic, masters, store)
    _log(model, dtype, arithmetic, masters)


def store_master_weights(module: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Stores trained weights in a dtype, those of modules inside included."""
    for parameter in module.parameters():
        if parameter.requires_grad and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)


def is_fast_on_cpu(dtype: torch.dtype) -> bool:
    """Whether matrix products in ``dtype`` have a kernel on this CPU."""
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if dtype == torch.float16:
        return torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return True


def compute_units(backbone: nn.Module) -> Iterator[nn.Module]:
    """The modules that are called whole: each child of the backbone, and each of its blocks."""
    for child in backbone.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield child


def compute_in(unit: nn.Module, names: list[str], dtype: torch.dtype,
               arithmetic: torch.dtype, masters: torch.dtype = torch.float32,
               store: bool = True) -> None:
    """Stores parameters as the policy says, and makes a module compute on casts of them.

    Each call casts the parameters, as FSDP2's mixed precision does when it gathers them; gradients
    flow back through the cast. The copies live as long as autograd needs them: with activation
    checkpointing, one module's at a time. Where nothing is to be cast, nothing is wrapped.

    Args:
        unit: Called with tensors.
        names: Of its parameters.
        dtype: That the parameters are rounded to.
        arithmetic: That they, and the inputs, are then computed with.
        masters: That trained ones are stored in.
        store: Whether they are brought to it now, or else later.
    """
    slots = []
    for name in names:
        owner, _, leaf = name.rpartition('.')
        module = unit.get_submodule(owner)
        parameter = module._parameters[leaf]
        stored_in = masters if parameter.requires_grad else dtype
        if parameter.dtype != stored_in and (store or not parameter.requires_grad):
            parameter.data = parameter.data.to(stored_in)
        if not stored_in == dtype == arithmetic:
            slots.append((module, leaf))
    if slots and getattr(unit, '_computes_in', None) != (dtype, arithmetic):
        unit._computes_in = (dtype, arithmetic)
        unit._inner_forward = unit.forward
        unit.forward = _on_casts(unit, slots, dtype, arithmetic)


def move_casts_to_fsdp(backbone: nn.Module) -> tuple[torch.dtype | None, bool]:
    """Leaves the casts of :func:`compute_in` to FSDP2's mixed precision, as far as it has them.

    Where weights are rounded to one dtype and computed with in another, each module still casts
    what FSDP2 has rounded and gathered, and its inputs.

    Returns:
        The dtype that FSDP2 is to cast the parameters to, None to leave them as they are; and
        whether it is to cast inputs too.
    """
    units = [unit for unit in (backbone, *compute_units(backbone))
             if hasattr(unit, '_computes_in')]
    dtypes = {unit._computes_in for unit in units}
    if len(dtypes) != 1:
        return None, True
    dtype, arithmetic = dtypes.pop()
    for unit in units if dtype == arithmetic else ():
        del unit._computes_in, unit._inner_forward, unit.forward
    return dtype, dtype == arithmetic


def compile_blocks(blocks: list[nn.Module]) -> None:
    """Compiles the forwards of blocks, inside their casts where they have them; names stay.

    Drop path stays outside: its probability is a constant of each block, and would make a graph of
    its own for each, up to torch's limit of 8, beyond which nothing is compiled. Where some blocks
    have it, all get it, the first one at 0. Torch runs the latest graph that fits; with two kinds
    of blocks it could recompute an activation by another graph than it came from, and fail.
    """
    if any(isinstance(child, DropPath) for block in blocks for child in block.modules()):
        for block in blocks:
            if isinstance(block.drop_path, nn.Identity):
                block.drop_path = DropPath(0.0)
            block.drop_path.forward = torch.compiler.disable(block.drop_path.forward)
    for block in blocks:
        name = '_inner_forward' if hasattr(block, '_computes_in') else 'forward'
        setattr(block, name, torch.compile(getattr(block, name)))


def _on_casts(unit: nn.Module, slots: list[tuple[nn.Module, str]], dtype: torch.dtype,
              arithmetic: torch.dtype):
    def forward_on_casts(*inputs):
        inputs = [x.to(arithmetic) if torch.is_tensor(x) and x.is_floating_point() else x
                  for x in inputs]
        stored: list[Tensor] = [module._parameters[name] for module, name in slots]
        try:
            for (module, name), parameter in zip(slots, stored):
                module._parameters[name] = parameter.to(dtype).to(arithmetic)
            return unit._inner_forward(*inputs)
        finally:
            for (module, name), parameter in zip(slots, stored):
                module._parameters[name] = parameter

    return forward_on_casts


def _log(model: nn.Module, dtype: torch.dtype, arithmetic: torch.dtype,
         masters: torch.dtype) -> None:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    stored = str(masters).removeprefix('torch.')
    if masters != torch.float32:
        stored += ' (heads in float32)'
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    name = str(dtype).removeprefix('torch.')
    computes = f'in {name}' if dtype == arithmetic else (
        f'in float32 on weights rounded to {name}, for which this CPU has no instructions')
    get_root_logger().info(
        'precision: the backbone computes %s, the heads in float32; %s trained parameters stored '
        'in %s, %s frozen ones in %s', computes, f'{trained:,}', stored, f'{frozen:,}', name)
