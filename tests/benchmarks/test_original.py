"""The original's way computes what ours does, or its time would say nothing."""
import pytest
import torch

from benchmarks.context import Context
from benchmarks.original import OriginalBackbone, OriginalTraining
from benchmarks.results import CaseResult
from benchmarks.training import config_of, predict, training
from mmseg_custom.distributed.parallelize import unwrap


@pytest.fixture
def trained():
    run = Context(CaseResult('case', 'T'), 'cpu', tiny=True)
    cfg = config_of('linear_probing', run, precision='fp32')
    with training(cfg, run, predict(cfg, run)[0]) as found:
        yield found


def test_maps_and_losses_are_the_same(trained, tmp_path):
    model = unwrap(trained.runner.model)
    images = torch.randn(1, 3, 84, 84)
    expected = model.backbone.frozen_features(images)
    for ours, theirs in zip(expected, OriginalBackbone(model.backbone)(images)):
        assert (ours - theirs).norm() / theirs.norm() < 1e-5
    original = OriginalTraining(model, trained.cfg, 'cpu', str(tmp_path))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    original.step(trained.unpinned)
    loss = original.runner.outputs['log_vars']['loss']
    assert isinstance(loss, float)  # it was read from the device, as there
    model.load_state_dict(before)
    trained.step()
    assert trained.loss() == pytest.approx(loss, rel=1e-5)
