"""Steps on feature maps on a simulated CUDA device: from a cache, and of the heads of a sweep."""
from collections import Counter

import pytest
import torch
from helpers.fake_cuda import on_cuda, simulate_ranks
from helpers.fake_runs import Loader, prepared, recipe, train
from mmcv.parallel import DataContainer
from mmcv.runner import Hook

from mmseg_custom.checkpoint import save
from mmseg_custom.engine.predict import predict_all
from mmseg_custom.engine.preemption import Preemption
from mmseg_custom.engine.sweep import train as sweeps
from mmseg_custom.engine.sweep.backbone import SharedBackbone
from mmseg_custom.engine.sweep.evaluation import SharedPrediction
from mmseg_custom.engine.sweep.grid import combinations
from mmseg_custom.engine.sweep.probe import Probe

SIZES = [(512, 683), (512, 512), (512, 1980)]  # of images
COPY = 'mmseg_custom/engine/copies.py:wait (synchronize)'


class Steps(Hook):
    """Collects the host waits until the last step."""

    def __init__(self, seen):
        self.seen, self.waits = seen, None

    def after_train_iter(self, runner):
        self.waits = list(self.seen.host_waits)


class ImageLoader:
    """One image a batch, for an evaluation."""

    dataset, batch_sampler = SIZES, [[i] for i in range(len(SIZES))]

    def __iter__(self):
        for size in SIZES:
            meta = dict(img_shape=(*size, 3), ori_shape=(*size, 3), flip=False)
            yield dict(img=[[torch.empty(3, *size)]],
                       img_metas=[DataContainer([[meta]], cpu_only=True)])


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


@pytest.mark.parametrize('batched', [False, True])
def test_heads_of_a_sweep_wait_once_an_iteration(cuda, tmp_path, batched):
    """For the losses of the iteration before, of all heads; the GPU has computed them by then."""
    waits, _ = zip(*iterations_of_a_sweep(cuda, tmp_path, batched))
    assert waits[1] == {COPY: 1}


def test_batched_heads_exchange_as_one(cuda, tmp_path):
    """Statistics of batch norm, gradients, and losses with accuracies: once for all heads."""
    waits, collectives = zip(*iterations_of_a_sweep(cuda, tmp_path, True, ranks=8))
    assert waits[1] == {COPY: 1}
    assert collectives[1] == {'c10d._allgather_base_.default': 2,  # a tensor and its result
                              'c10d.allreduce_.default': 2}


def iterations_of_a_sweep(cuda, tmp_path, batched, ranks=1):
    """Returns host waits and collectives of each iteration of a sweep of two heads."""
    cuda.setattr(save, 'write_pth', lambda path, content: None)
    cuda.setattr(sweeps, 'build_train_loader', lambda run, *_, **__: Loader(run))
    cfg = recipe('linear probing', 2, log_config__interval=10)
    cfg.sweep = dict(lr=[1e-4, 1e-3], batched=batched)
    cfg.model.backbone.pretrained = None
    run = prepared(cfg, tmp_path / 'run', ranks)
    found = []
    with on_cuda() as seen, simulate_ranks(cuda, seen, ranks):
        def end_iteration(*_):
            found.append((Counter(seen.host_waits), Counter(seen.collectives)))
            seen.host_waits.clear()
            seen.collectives.clear()
            return None, False

        cuda.setattr(Preemption, 'agree', end_iteration)
        results = sweeps.sweep(run)
    assert [result['state'] for result in results] == ['finished'] * 2
    return found


def test_an_evaluation_of_heads_computes_the_feature_maps_once(cuda, tmp_path):
    """Nothing waits but a thread beside, for the labels of each head."""
    cfg = recipe('linear probing', 2, model__test_cfg__window_batch=4)
    cfg.sweep, cfg.model.backbone.pretrained = dict(lr=[1e-4, 1e-3, 1e-2]), None
    run = prepared(cfg, tmp_path / 'run')
    heads = [run.with_config(one.cfg) for one in combinations(run.cfg)]
    with on_cuda() as seen:
        shared = SharedBackbone(heads[0], cfg.model.backbone.out_indices)
        shared.network.to('cuda')
        models = [Probe(f'head {i}', head, shared).model for i, head in enumerate(heads)]
        batches = []
        frozen_features = shared.network.frozen_features
        cuda.setattr(shared.network, 'frozen_features',
                     lambda windows: batches.append(len(windows)) or frozen_features(windows))
        seen.host_waits.clear()
        seen.copies.clear()
        found = predict_all(models, ImageLoader(), 'cuda',
                            labels_of=SharedPrediction(models, shared))
    assert [[labels.shape for labels in own.in_order()] for own in found] == [SIZES] * 3
    assert sum(batches) == 4 + 4 + 12  # windows of the images
    assert not seen.host_waits and all(pinned for pinned, _ in seen.copies)
    assert sum(not on_compute for _, on_compute in seen.copies) == len(SIZES)  # images
    assert Counter(seen.beside) == {COPY: len(SIZES) * 3}
