"""State of an optimizer: saved with the names of its parameters, and loaded by name.

A state dict of torch numbers the parameters by their position in the optimizer. Another program may
register the same parameters in another order: the original InternVL code has ``attn.proj.bias``
before ``attn.q_norm.weight``, of the same shape. So each group is saved with ``param_names``, as
constructors for layer decay and torch's own named parameters have it. Where a file of another
program has none, the order of its ``state_dict``, which is that of its modules, tells the names.
"""
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate
from torch.optim import Optimizer

from ..errors import InputError
from .checkpoint import Checkpoint
from .content import check_optimizer
from .lazy import LazyTensor
from .shard_reader import OPTIMIZER

Names = list[list[str]]  # of the parameters of each group
OTHER_CONFIG = 'resume with the config it was trained with, or give it as --load-from'


def with_names(state_dict: dict, optimizer: Optimizer, model: nn.Module) -> dict:
    """Adds ``param_names`` to the groups of an optimizer's state dict.

    Args:
        state_dict: State dict of the optimizer.
        optimizer: Optimizer of the model's parameters.
        model: Segmentor, unwrapped.
    """
    groups = [{**group, 'param_names': names} for group, names
              in zip(state_dict['param_groups'], parameter_names(optimizer, model))]
    return {**state_dict, 'param_groups': groups}


def parameter_names(optimizer: Optimizer, model: nn.Module) -> Names:
    """Returns the names of an optimizer's parameters, by its groups.

    A parameter that is not the model's is called by its position.
    """
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[known.get(id(parameter), f'{number}.{position}')
             for position, parameter in enumerate(group['params'])]
            for number, group in enumerate(optimizer.param_groups)]


def load_optimizer(optimizer: Optimizer | dict[str, Optimizer], checkpoint: Checkpoint,
                   model: nn.Module) -> None:
    """Loads the optimizer's state by the names of parameters; sharded ones take their shards of it.

    Of a sharded checkpoint each process reads its shards alone. The parameters may be sharded or
    not, over any number of processes. An optimizer that stores its state in another form names the
    device that it takes it from as ``state_dict_device``.

    Args:
        optimizer: Optimizer of the same parameters, or a dict of several.
        checkpoint: Checkpoint of either kind, of this program or of another.
        model: Segmentor whose parameters they are, unwrapped.

    Raises:
        InputError: If the optimizer has other parameters or is of another kind, if it is not known
            which state belongs to which parameter, or if a file is damaged.
    """
    path = checkpoint.path
    saved = check_optimizer(checkpoint.optimizer, path)
    if saved is None:
        raise InputError(f'{path} holds no state of an optimizer: give it as --load-from')
    if isinstance(optimizer, dict):
        for name, part in optimizer.items():
            load_optimizer(part, replace(checkpoint, optimizer=saved.get(name)), model)
        return
    if 'param_groups' not in saved:
        raise InputError(f'{path} holds the states of several optimizers '
                         f'({", ".join(map(repr, saved))}), the config has one: {OTHER_CONFIG}')
    names = parameter_names(optimizer, model)
    _check_numbers(names, saved, path)
    theirs = _saved_names(checkpoint, saved, names, model)
    groups = _groups_by_names(optimizer, saved, names, theirs, path)
    positions = {name: position for group, own in zip(saved['param_groups'], theirs)
                 for name, position in zip(own, group['params'])}
    order = [positions[name] for own in names for name in own]
    state = _state_for(optimizer, checkpoint, saved['state'], order)
    optimizer.load_state_dict({**saved, 'state': state, 'param_groups': groups})


def _state_for(optimizer: Optimizer, checkpoint: Checkpoint, saved: Mapping,
               order: list[int]) -> dict[int, dict[str, object]]:
    """Reads the state of an optimizer's parameters, sharded like them.

    Args:
        optimizer: Optimizer that it is for.
        checkpoint: Checkpoint of either kind.
        saved: Its state, by the numbers of the parameters there.
        order: Number there of each parameter of this optimizer.
    """
    parameters = [p for group in optimizer.param_groups for p in group['params']]
    device = getattr(optimizer, 'state_dict_device', None)
    state: dict[int, dict[str, object]] = {}
    to_read: dict[str, Tensor] = {}
    for index, (parameter, number) in enumerate(zip(parameters, order)):
        if number not in saved:
            continue  # a frozen parameter, or one that had no gradient yet
        state[index] = {}
        for key, value in saved[number].items():
            full = f'{OPTIMIZER}{number}.{key}'
            if isinstance(value, (Tensor, LazyTensor)):
                _check_shape(value, parameter, f'{checkpoint.path}: {full}')
            if isinstance(value, LazyTensor):
                value = to_read[full] = _memory_for(value, parameter, device)
            state[index][key] = shard_like(value, parameter, device)
    if checkpoint.reader is not None:
        checkpoint.reader.load_into(to_read)
    return state


def shard_like(value: object, parameter: Tensor, device: str | None = None) -> object:
    """Returns this process's shard of a whole value, if the parameter is sharded.

    It is on the given device; default: on the parameter's.
    """
    if isinstance(value, DTensor) or not isinstance(value, Tensor) or not isinstance(
            parameter, DTensor) or value.shape != parameter.shape:
        return value
    mesh = parameter.device_mesh  # every process has read the same file: nothing is sent
    whole = DTensor.from_local(value, mesh, [Replicate()] * mesh.ndim, run_check=False)
    shard = whole.redistribute(placements=parameter.placements)
    return shard.to(device) if device else shard


def _check_numbers(names: Names, saved: Mapping, path: str) -> None:
    there = [len(group['params']) for group in saved['param_groups']]
    here = [len(group) for group in names]
    if sorted(there) != sorted(here):
        raise InputError(f'{path}: its optimizer has {sum(there)} parameters in {len(there)} '
                         f'groups, the one of this config {sum(here)} in {len(here)}: '
                         f'{OTHER_CONFIG}')


def _saved_names(checkpoint: Checkpoint, saved: Mapping, here: Names, model: nn.Module) -> Names:
    """Returns the names of the parameters of each saved group.

    Raises:
        InputError: If they are not known.
    """
    groups = saved['param_groups']
    if all('param_names' in group for group in groups):
        found = [[str(name) for name in group['param_names']] for group in groups]
        if all(name.startswith('module.') for own in found for name in own):
            found = [[name.removeprefix('module.') for name in own] for own in found]
        if [len(own) for own in found] == [len(group['params']) for group in groups]:
            return found
    sizes = [len(group['params']) for group in groups]
    if 'internvit_seg_version' in checkpoint.meta and sizes == [len(own) for own in here]:
        return here  # of this package, from before it saved names
    # All in one group, or each in its own (mmcv's constructor): in the order of the modules.
    trained = {name for own in here for name in own}
    ordered = [name for name in checkpoint.weights if name in trained]
    if (len(sizes) == 1 or set(sizes) == {1}) and len(ordered) == sum(sizes):
        return [ordered] if len(sizes) == 1 else [[name] for name in ordered]
    raise InputError(f'{checkpoint.path}: it is not known which weights the states of its '
                     f'optimizer belong to ({len(sizes)} groups without param_names): give it as '
                     '--load-from')


def _groups_by_names(optimizer: Optimizer, saved: Mapping, here: Names, theirs: Names,
                     path: str) -> list[dict]:
    """Returns the saved groups in the order of this optimizer's, with its parameters' numbers.

    Settings that the saved ones lack, as those of an older torch do, are this optimizer's, and so
    is the way in which it computes a step.

    Raises:
        InputError: If a group has other parameters, or settings of another kind of optimizer.
    """
    by_names = {frozenset(own): group for own, group in zip(theirs, saved['param_groups'])}
    groups: list[dict] = []
    for own, group in zip(here, optimizer.state_dict()['param_groups']):
        found = by_names.get(frozenset(own))
        if found is None:
            known = {name for names in theirs for name in names}
            missing = next((name for name in own if name not in known), None)
            reason = (f'has no state for {missing}' if missing else
                      f'groups its parameters otherwise (the group of {own[0]} differs)')
            raise InputError(f'{path}: its optimizer {reason}: {OTHER_CONFIG}')
        lacking = [name for name, value in optimizer.defaults.items() if name not in found
                   and isinstance(value, (int, float, tuple)) and not isinstance(value, bool)]
        if lacking:
            raise InputError(f'{path}: its optimizer has no {lacking[0]}: it is of another kind '
                             f'than {type(optimizer).__name__}: {OTHER_CONFIG}')
        computed = {name: group[name] for name in ('foreach', 'fused') if name in group}
        groups.append({**group, **found, **computed, 'params': group['params'],
                       'param_names': own})
    return groups


def _check_shape(value: Tensor | LazyTensor, parameter: Tensor, where: str) -> None:
    """Refuses a value of other dimensions; some optimizers reduce one of them to 1."""
    shape, wanted = tuple(value.shape), tuple(parameter.shape)
    if len(shape) == len(wanted) > 0 and any(
            size not in (1, whole) for size, whole in zip(shape, wanted)):
        raise InputError(f'{where} has shape {shape}, the parameter {wanted}: resume with the '
                         'config it was trained with')


def _memory_for(value: LazyTensor, parameter: Tensor, device: str | None) -> Tensor:
    """Returns memory for a value of a parameter's state, sharded like the parameter.

    It is on the given device; default: on the parameter's.
    """
    if value.shape == tuple(parameter.shape):
        return torch.zeros_like(parameter, dtype=value.dtype, device=device, requires_grad=False)
    return torch.empty(value.shape, dtype=value.dtype)
