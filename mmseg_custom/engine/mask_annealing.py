"""The course of masked attention over a training."""
from mmcv.runner import HOOKS, BaseRunner, Hook
from torch import nn

from ..distributed.parallelize import unwrap
from ..distributed.precision import heads


@HOOKS.register_module()
class MaskAnnealingHook(Hook):
    """Tells the heads with masked attention how much of the training is done.

    ``train.py`` registers it by itself where a head has an ``anneal``; mmseg's own tools need
    ``custom_hooks = [dict(type='MaskAnnealingHook')]``.
    """

    def before_train_iter(self, runner: BaseRunner) -> None:
        """Sets the probabilities of this iteration."""
        for head in annealed_heads(unwrap(runner.model)):
            head.anneal(runner.iter / runner.max_iters)


def annealed_heads(model: nn.Module) -> list[nn.Module]:
    """Returns the heads of a segmentor whose masked attention is annealed."""
    return [head for head in heads(model) if hasattr(head, 'anneal')]
