"""Evaluation on a simulated CUDA device: windows of several images and views, in lockstep too."""
from collections import Counter

import pytest
import torch
from helpers.fake_cuda import on_cuda, simulate_ranks
from helpers.fake_runs import built, prepared, recipe
from mmcv.parallel import DataContainer

from mmseg_custom.engine.predict import predict_all
from mmseg_custom.models.segmentors import window_inference

SIZES = [(512, 683), (512, 512), (683, 512), (512, 1980)]  # of the network's input
LABELS = 'mmseg_custom/engine/copies.py:wait (synchronize)'


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
    pytest.param('full tuning', 8, 2, 1, marks=pytest.mark.slow)])
def test_a_second_thread_waits_for_labels_alone(cuda, tmp_path, name, ranks, views, images):
    """Between hosts, one exchange an image says how often all ranks run the network."""
    exchanges = []

    def two_batches_more(numbers, device):  # of windows, on another rank
        exchanges.append(most_of_ranks(numbers, device))
        return numbers[0] + 2, False

    most_of_ranks = window_inference.most_of_ranks
    cuda.setattr(window_inference, 'most_of_ranks', two_batches_more)
    run = prepared(recipe(name, model__test_cfg__window_batch=4), tmp_path / 'run', ranks)
    with on_cuda() as seen, simulate_ranks(cuda, seen, ranks, host=True):
        model = built(run, seen)
        seen.host_waits.clear()
        seen.copies.clear()
        found, = predict_all([model], Loader(views, images, ranks), 'cuda')
    assert [labels.shape for labels in found.in_order()] == SIZES
    print(f'{name}, {views} view(s): host waits {seen.host_waits}, in the thread beside '
          f'{dict(Counter(seen.beside))}, copies to the device {len(seen.copies)}')
    assert not seen.host_waits and all(pinned for pinned, _ in seen.copies)
    assert sum(not on_compute for _, on_compute in seen.copies) == views * len(SIZES)
    assert Counter(seen.beside) == {LABELS: len(SIZES)}
    assert len(exchanges) == (len(SIZES) if ranks > 1 else 0)
