"""Casts with which a module computes in another dtype than its parameters are stored in."""
import torch
from torch import Tensor, nn


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
        memory_format: Memory format of the inputs and parameters of four axes; default: their own.
    """

    def __init__(self, unit: nn.Module, names: list[str], dtype: torch.dtype,
                 arithmetic: torch.dtype,
                 memory_format: torch.memory_format = torch.preserve_format):
        self.names, self.dtype, self.arithmetic = names, dtype, arithmetic
        self.memory_format = memory_format
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
            module._parameters[leaf] = self._computed(parameter.to(self.dtype))
        return tuple(self._computed(x) if torch.is_tensor(x) and x.is_floating_point() else x
                     for x in inputs)

    def _computed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.arithmetic, memory_format=(
            self.memory_format if tensor.ndim == 4 else torch.preserve_format))

    def _restore(self, *_: object) -> None:
        for module, leaf, parameter in self._stored:
            module._parameters[leaf] = parameter
        self._stored.clear()
