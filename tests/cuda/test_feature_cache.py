"""Filling a feature cache on a simulated CUDA device."""
from collections import Counter
from types import SimpleNamespace

import torch
from helpers.fake_cuda import on_cuda
from helpers.fake_runs import built, prepared, recipe

from mmseg_custom.engine.background import Background
from mmseg_custom.engine.cached.fill import BATCH, Filler, store
from mmseg_custom.feature_cache.shards import ShardData


def test_a_second_thread_waits_for_feature_maps_alone(cuda, tmp_path):
    run = prepared(recipe('head tuning'), tmp_path / 'run')
    batches = 3
    with on_cuda() as seen:
        model = built(run, seen).module
        levels = len(model.backbone.out_indices)
        cache = SimpleNamespace(layout=SimpleNamespace(torch_dtype=torch.bfloat16))
        filler = Filler(cache, 1, [], model, 'cuda')
        data = ShardData(tuple(torch.empty(batches * BATCH, 3200, 36, 36, dtype=torch.bfloat16)
                               for _ in range(levels)),
                         torch.empty(batches * BATCH, 504, 504, dtype=torch.uint8))
        images, labels = torch.empty(BATCH, 3, 504, 504), torch.empty(BATCH, 504, 504)
        seen.host_waits.clear()
        seen.copies.clear()
        with Background('cuda') as beside:
            for i in range(batches):
                rows, features = slice(i * BATCH, (i + 1) * BATCH), filler.compute(images)
                beside.put(lambda rows=rows, features=features: store(data, rows, features, labels))
    print(f'host waits {seen.host_waits}, in the thread beside {dict(Counter(seen.beside))}')
    assert not seen.host_waits
    assert Counter(seen.beside) == {
        'mmseg_custom/engine/copies.py:wait (synchronize)': batches * levels}
    assert seen.copies == [(True, False)] * batches  # from pinned memory, beside what is computed
