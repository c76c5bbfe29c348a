"""Evaluation on a simulated CUDA device: windows of several images and views, in lockstep too."""
from collections import Counter

import pytest
import torch
from helpers.fake_cuda import on_cuda, simulate_ranks
from helpers.fake_runs import built, prepared, recipe
from mmcv.parallel import DataContainer

from mmseg_custom.engine.predict import predict_all
from mmseg_custom.models.segmentors import encoder_decoder

SIZES = [(512, 683), (512, 512), (683, 512), (512, 1980)]  # of the network's input
LABELS = 'mmseg_custom/models/segmentors/windows.py:labels_of (a copy to the host)'
LOCKSTEP = 'mmseg_custom/models/segmentors/encoder_decoder.py:_any_rank (a number is read)'


class Loader:
    """Batches of images of several sizes, each in several views."""

    def __init__(self, views: int, images: int, ranks: int):
        self.views, self.images = views, images
        self.batch_sampler = [list(range(i, i + images)) for i in range(0, len(SIZES), images)]
        self.dataset = SIZES * ranks

    def __iter__(self):
        for batch in self.batch_sampler:
            sizes = [SIZES[i] for i in batch]
            yield dict(
                img=[[torch.empty(3, *size) for size in sizes] for _ in range(self.views)],
                img_metas=[DataContainer([[self.meta(size, view) for size in sizes]],
                                         cpu_only=True) for view in range(self.views)])

    @staticmethod
    def meta(size, view):
        return dict(img_shape=(*size, 3), pad_shape=(*size, 3), ori_shape=(*size, 3),
                    flip=view % 2 == 1, flip_direction='horizontal')


@pytest.mark.parametrize('name, ranks, views, images', [
    ('linear probing', 1, 1, 1), ('linear probing', 1, 4, 2), ('head tuning', 1, 2, 2),
    ('full tuning', 8, 2, 1)])
def test_the_host_waits_for_labels(cuda, tmp_path, name, ranks, views, images):
    extra = iter([True, True])  # another rank has two batches of windows more
    any_rank = encoder_decoder._any_rank

    def any_rank_as_scripted(value, device):
        any_rank(value, device)
        return value or next(extra, False)

    cuda.setattr(encoder_decoder, '_any_rank', any_rank_as_scripted)
    run = prepared(recipe(name, model__test_cfg__window_batch=4), tmp_path / 'run', ranks)
    with on_cuda() as seen, simulate_ranks(cuda, seen, ranks):
        model = built(run, seen)
        seen.host_waits.clear()
        found, = predict_all([model], Loader(views, images, ranks), 'cuda')
    assert len(found.results) == len(SIZES) and not (ranks > 1 and next(extra, False))
    assert [labels.shape for labels in found.in_order()] == SIZES
    waits = Counter(seen.host_waits)
    print(f'{name}, {views} view(s): host waits by place {dict(waits)}')
    assert waits.pop(LABELS) == len(SIZES)
    if ranks > 1:
        assert waits.keys() == {LOCKSTEP}
    else:
        assert not waits
