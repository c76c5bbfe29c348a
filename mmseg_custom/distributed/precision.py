"""The only dtype policy: what each parameter is stored in, and what the backbone computes in.

====================  ===============  ============
part                  stored in        computes in
====================  ===============  ============
backbone, frozen      compute dtype    compute dtype
backbone, trained     float32          compute dtype
heads                 float32          float32
====================  ===============  ============

Trained weights keep float32 because a bfloat16 number has 8 significant bits: an AdamW step of 4e-5
on a weight of 0.02 is mostly less than half of the last one, and the weight never moves.
"""
from typing import Iterator

import torch
from mmseg.utils import get_root_logger
from torch import nn

COMPUTE_DTYPES = dict(bf16=torch.bfloat16, fp16=torch.float16, fp32=torch.float32)


def apply_precision(model: nn.Module, dtype: torch.dtype) -> None:
    """Applies the policy to a segmentor; applying it again changes nothing.

    Must come before the optimizer and before any wrapper that looks at parameters (DDP, FSDP2);
    parameters stay the same objects.

    Args:
        model: Has ``backbone``; everything else in it counts as a head.
        dtype: What the backbone computes in.
    """
    for name, child in model.named_children():
        if name != 'backbone':
            child.float()
    for unit in compute_units(model.backbone):
        _store(unit.parameters(), dtype)
        if dtype != torch.float32 and any(p.requires_grad for p in unit.parameters()):
            compute_in(unit, dtype)
    _store(model.backbone.parameters(recurse=False), dtype)
    _log(model, dtype)


def compute_units(backbone: nn.Module) -> Iterator[nn.Module]:
    """The modules that are called whole: each child of the backbone, and each of its blocks."""
    for child in backbone.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield child


def compute_in(unit: nn.Module, dtype: torch.dtype) -> None:
    """Makes a module compute in ``dtype`` while its parameters stay what they are.

    Each call casts the parameters, as FSDP2's mixed precision does when it gathers them; gradients
    flow back through the cast. The copies live as long as autograd needs them: with activation
    checkpointing, one module's at a time.
    """
    if getattr(unit, '_computes_in', None) == dtype:
        return
    forward = unit.forward
    slots = [(module, name) for module in unit.modules() for name in module._parameters
             if module._parameters[name] is not None]

    def forward_in_dtype(*inputs):
        inputs = [x.to(dtype) if torch.is_tensor(x) and x.is_floating_point() else x
                  for x in inputs]
        masters = [module._parameters[name] for module, name in slots]
        try:
            for (module, name), master in zip(slots, masters):
                module._parameters[name] = master.to(dtype)
            return forward(*inputs)
        finally:
            for (module, name), master in zip(slots, masters):
                module._parameters[name] = master

    unit.forward = forward_in_dtype
    unit._computes_in = dtype


def _store(parameters: Iterator[nn.Parameter], dtype: torch.dtype) -> None:
    for parameter in parameters:
        stored_in = torch.float32 if parameter.requires_grad else dtype
        if parameter.dtype != stored_in:
            parameter.data = parameter.data.to(stored_in)


def _log(model: nn.Module, dtype: torch.dtype) -> None:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    get_root_logger().info(
        'precision: the backbone computes in %s, the heads in float32; %s trained parameters '
        'stored in float32, %s frozen ones in %s', str(dtype).removeprefix('torch.'),
        f'{trained:,}', f'{frozen:,}', str(dtype).removeprefix('torch.'))
