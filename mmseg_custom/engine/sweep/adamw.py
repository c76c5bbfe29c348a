"""AdamW's step for the optimizers of many heads at once, each with its own learning rates.

torch's multi-tensor AdamW takes one learning rate a call: a call for each parameter group of each
head, some ten launches every time. These are its operations, with a number for each tensor in the
place of one for all, so that the results are the same bits.
"""
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer


class AdamWSteps:
    """Takes the steps of many ``torch.optim.AdamW``, whose states stay their own.

    An optimizer without a state takes its first step itself, which makes the state.
    """

    def __init__(self):
        self._counts: dict[Optimizer, float] = {}  # steps done; those of a fused one are on a GPU

    def step(self, optimizers: Sequence[AdamW]) -> None:
        """Takes a step of each optimizer, for the parameters that have gradients."""
        ready = []
        for optimizer in optimizers:
            if optimizer.state:
                ready.append(optimizer)
            else:
                optimizer.step()
                self._counts[optimizer] = 1.
        if ready:
            self._step(ready)

    def _step(self, optimizers: Sequence[AdamW]) -> None:
        tensors: list[tuple[Tensor, Tensor, dict]] = []
        decays, sizes, roots = [], [], []  # a number for each tensor
        for optimizer in optimizers:
            if optimizer not in self._counts:  # it was restored from a checkpoint
                state = next(iter(optimizer.state.values()))
                self._counts[optimizer] = float(state['step'])
            self._counts[optimizer] += 1
            done = self._counts[optimizer]
            for group in optimizer.param_groups:
                beta1, beta2 = group['betas']
                own = [(p, p.grad, optimizer.state[p]) for p in group['params']
                       if p.grad is not None]
                tensors += own
                decays += [1 - group['lr'] * group['weight_decay']] * len(own)
                sizes += [group['lr'] / (1 - beta1 ** done) * -1] * len(own)
                roots += [(1 - beta2 ** done) ** 0.5] * len(own)
        parameters, gradients, states = (list(part) for part in zip(*tensors))
        beta1, beta2 = optimizers[0].param_groups[0]['betas']
        means, squares, steps = ([state[name] for state in states]
                                 for name in ('exp_avg', 'exp_avg_sq', 'step'))
        with torch.no_grad():
            torch._foreach_add_(steps, 1)
            torch._foreach_mul_(parameters, decays)
            torch._foreach_lerp_(means, gradients, 1 - beta1)
            torch._foreach_mul_(squares, beta2)
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
            divisors = torch._foreach_sqrt(squares)
            torch._foreach_div_(divisors, roots)
            torch._foreach_add_(divisors, optimizers[0].param_groups[0]['eps'])
            torch._foreach_addcdiv_(parameters, means, divisors, sizes)


def can_step_together(optimizer: Optimizer) -> bool:
    """Returns whether :class:`AdamWSteps` takes the steps of an optimizer."""
    groups = optimizer.param_groups
    return type(optimizer) is AdamW and not any(
        group[name] for group in groups
        for name in ('amsgrad', 'maximize', 'capturable', 'differentiable')) and all(
        not isinstance(group['lr'], Tensor) and (group['betas'], group['eps']) == (
            groups[0]['betas'], groups[0]['eps']) for group in groups)
