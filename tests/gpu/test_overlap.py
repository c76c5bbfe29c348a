"""What the host does beside a GPU gives the same bits as what it does in turns with it."""
import time

import pytest
import torch
from helpers.data import SMALL_LINEAR, draw_data, prepare, write_config
from torch import nn

from mmseg_custom.engine import background
from mmseg_custom.engine.background import Background
from mmseg_custom.engine.cached.fill import BATCH, Filler, store
from mmseg_custom.engine.loaders import build_test_loader
from mmseg_custom.engine.predict import predict
from mmseg_custom.engine.run import Run
from mmseg_custom.engine.test import build_test_model
from mmseg_custom.feature_cache import FeatureCache, RecordLayout
from mmseg_custom.feature_cache.shards import ShardData
from mmseg_custom.models.frozen_features import frozen_features

pytestmark = pytest.mark.gpu


@pytest.fixture
def run(device, tmp_path) -> Run:
    """A test run on twelve images of several sizes, several in a batch and in two views."""
    config = write_config(tmp_path / 'config.py', draw_data(tmp_path, train=2, val=12),
                          extra=SMALL_LINEAR)
    settings = {'data.test_dataloader.samples_per_gpu': 3, 'data.test.pipeline.1.flip': True}
    return prepare(config, ['test'], settings, checkpoint='none', device=device)


def test_results_made_beside_are_those_in_turns(run, monkeypatch):
    model, dataset = build_test_model(run), run.data['test']

    def slow(labels, indices):  # so that the GPU is ahead
        time.sleep(0.05 * (indices[0] % 3))
        return dataset.pre_eval(labels, indices)

    found = predict(model, build_test_loader(run, 'test'), run.device, slow)
    monkeypatch.setattr(background, '_thread_for', lambda device: None)
    expected = predict(model, build_test_loader(run, 'test'), run.device, dataset.pre_eval)
    assert found.stopped_by is expected.stopped_by is None
    assert list(found.results) == list(range(12))
    for one, other in zip(found.in_order(), expected.in_order(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_feature_maps_are_stored_whole(run, tmp_path):
    """Many batches are under way, and memory of the device and of the host is used again."""
    side, width, batches = 56, 32, 20
    layout = RecordLayout.of(BATCH * batches, ((width, 4, 4),) * 2, (side, side), 'bf16')
    holder = nn.Module()
    holder.backbone = build_test_model(run).backbone.to(run.device).eval()
    holder.backbone.out_indices = [0, 1]
    filler = Filler(FeatureCache.of(str(tmp_path / 'cache'), {}, layout), 1, [], holder, run.device)
    data = ShardData.empty(layout, BATCH * batches)
    images = torch.randn(batches, BATCH, 3, side, side)
    labels = torch.zeros(BATCH, side, side, dtype=torch.uint8)
    with Background(run.device) as beside:
        for i, crops in enumerate(images):
            rows, features = slice(i * BATCH, (i + 1) * BATCH), filler.compute(crops)
            beside.put(lambda rows=rows, features=features: store(data, rows, features, labels))
    for i, crops in enumerate(images):
        expected = frozen_features(holder, dict(img=crops.to(run.device)))
        for found, level in zip(data.features, expected, strict=True):
            assert torch.equal(found[i * BATCH:(i + 1) * BATCH], level.bfloat16().cpu())
