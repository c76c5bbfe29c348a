"""Training mode: when ``train()`` is called, and what it leaves behind."""
import pytest
from torch import nn

from mmseg_custom.engine.training_mode import TrainingMode


class Model(nn.Module):
    """A model with a frozen part, which counts the calls of ``train()``."""

    def __init__(self):
        super().__init__()
        self.frozen, self.head, self.calls = nn.Sequential(nn.Dropout()), nn.Dropout(), 0
        self.register_module('nothing', None)

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        self.calls += mode
        return self


CHANGES = {
    'evaluation': lambda model: model.eval(),
    'a part in eval mode': lambda model: model.head.eval(),
    'a frozen part in training mode': lambda model: model.frozen.train(),
    'a module inside': lambda model: model.frozen[0].train(),
    'another module': lambda model: setattr(model, 'head', nn.Identity()),
    'one more module': lambda model: model.frozen.append(nn.Identity()),
    'one module less': lambda model: delattr(model, 'head')}


@pytest.mark.parametrize('name', CHANGES)
def test_train_is_called_after_a_change_alone(name):
    model, mode = Model().eval(), TrainingMode()
    for _ in range(3):
        mode.enter(model)
    assert model.calls == 1 and model.training and not model.frozen.training
    CHANGES[name](model)
    for _ in range(2):
        mode.enter(model)
    assert model.calls == 2 and model.training and not model.frozen[0].training
    assert 'head' not in model._modules or model.head.training
