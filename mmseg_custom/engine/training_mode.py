"""Training mode, which is set only where something has left it.

``model.train()`` visits every module and sets an attribute of each. mmcv's loop calls it before
every iteration: milliseconds for the 874 modules of a linear probe of InternViT-6B, in which a GPU
may wait (``python -m benchmarks step_overheads``).
"""
from torch import nn

Modes = list[tuple[nn.Module, bool]]  # modules with their ``training``, in a fixed order


class TrainingMode:
    """Calls ``train()`` of a model before an iteration, unless it would change nothing.

    It would if a module is in another mode than the last call left it in (an evaluation, or a hook
    that freezes a part for a while), or if modules were added, replaced or removed. A model whose
    ``train()`` does more than set modes, in every iteration, needs a hook ``before_train_iter``.
    """

    def __init__(self):
        self._left: Modes = []

    def enter(self, model: nn.Module) -> None:
        """Puts the model into training mode; parts that its ``train()`` leaves frozen stay so."""
        if modes_of(model) != self._left:
            model.train()
            self._left = modes_of(model)


def modes_of(model: nn.Module) -> Modes:
    """Returns all modules with their modes; a module that is used twice is listed twice."""
    found, left = [], [model]
    while left:
        module = left.pop()
        found.append((module, module.training))
        left += [child for child in module._modules.values() if child is not None]
    return found
