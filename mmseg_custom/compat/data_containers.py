"""Tensors inside of mmcv's batches: in pinned memory, or on another device."""
from collections.abc import Callable
from typing import Any

from mmcv.parallel import DataContainer
from torch import Tensor


def pin_batches() -> None:
    """Lets torch's loaders pin the batches of mmcv, also of mmseg's own tools.

    ``pin_memory=True`` of a loader pins tensors, dicts and lists, and objects that have a method of
    that name. mmcv's DataContainer has none, so that each batch is copied to a GPU from pageable
    memory, for which the host waits. Can go with mmcv 1.x.
    """
    DataContainer.pin_memory = _pinned


def change_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Returns a batch with a function applied to its tensors; what stays on the CPU is kept.

    Args:
        change: Function of a tensor.
        value: Batch as mmcv's ``collate`` makes it: dicts and lists of tensors and DataContainers.
    """
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, DataContainer):
        if value.cpu_only:
            return value
        return DataContainer(change_tensors(change, value.data), value.stack, value.padding_value,
                             value.cpu_only, value.pad_dims)
    if isinstance(value, dict):
        return {name: change_tensors(change, part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [change_tensors(change, part) for part in value]
    return value


def _pinned(container: DataContainer) -> DataContainer:
    return change_tensors(lambda tensor: tensor.pin_memory(), container)
