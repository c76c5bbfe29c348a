"""Steps on feature maps on a simulated CUDA device: from a cache, and of the heads of a sweep."""
from collections import Counter

import torch
from helpers.fake_cuda import on_cuda
from helpers.fake_runs import Loader, prepared, recipe, train
from mmcv.parallel import DataContainer
from mmcv.runner import Hook

from mmseg_custom.checkpoint import save
from mmseg_custom.engine.preemption import Preemption
from mmseg_custom.engine.sweep import train as sweeps

# A head that diverges is stopped at once, so each reads its loss in every iteration.
LOSSES = 'mmseg_custom/compat/__init__.py:train_step (a number is read)'


class Steps(Hook):
    """Collects the host waits until the last step."""

    def __init__(self, seen):
        self.seen, self.waits = seen, None

    def after_train_iter(self, runner):
        self.waits = list(self.seen.host_waits)


class CachedLoader(Loader):
    """Batches with the feature maps of crops of 504 pixels, as a cache holds them."""

    def __next__(self):
        batch = super().__next__()
        number = len(batch.pop('img').data[0])
        feats = torch.empty(number, 3200, 36, 36, dtype=torch.bfloat16)
        return {**batch, 'feats': [DataContainer([feats], stack=True)]}


def test_a_step_on_cached_feature_maps_waits_for_nothing(cuda, tmp_path):
    run = prepared(recipe('linear probing', log_config__interval=10), tmp_path / 'run')
    with on_cuda() as seen:
        def drop_blocks(runner):
            runner.model.module.backbone.blocks = torch.nn.ModuleList()
            seen.host_waits.clear()

        steps = Steps(seen)
        train(run, seen, [steps], loader=CachedLoader(run), before=drop_blocks)
    assert steps.waits == []


def test_heads_of_a_sweep_read_their_losses_alone(cuda, tmp_path):
    cuda.setattr(save, 'write_pth', lambda path, content: None)
    cuda.setattr(sweeps, 'build_train_loader', lambda run, *_, **__: Loader(run))
    cfg = recipe('linear probing', log_config__interval=10)
    cfg.sweep, cfg.model.backbone.pretrained = dict(lr=[1e-4, 1e-3]), None
    run = prepared(cfg, tmp_path / 'run')
    waits = []  # of each iteration
    with on_cuda() as seen:
        def end_iteration(*_):
            waits.append(Counter(seen.host_waits))
            seen.host_waits.clear()
            return None, False

        cuda.setattr(Preemption, 'agree', end_iteration)
        results = sweeps.sweep(run)
    assert [result['state'] for result in results] == ['finished'] * 2
    assert waits[1] == {LOSSES: 3 * 2}  # loss, accuracy and their sum, of two heads
