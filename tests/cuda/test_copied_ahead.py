"""Batches on a simulated CUDA device, each copied while the one before is used."""
import weakref

import pytest
import torch
from helpers.fake_cuda import on_cuda
from mmcv.parallel import DataContainer

from mmseg_custom.engine.copied_ahead import copied_ahead


def batch_of(number: int) -> dict:
    return dict(img=DataContainer([torch.ones(number, 3).pin_memory()], stack=True),
                img_metas=DataContainer([['a name'] * number], cpu_only=True))


class Loader:
    """Batches of 1, 2, ... images; the fourth cannot be loaded."""

    sampler = "the loader's own"

    def __len__(self) -> int:
        return 4

    def __iter__(self):
        for number in (1, 2, 3):
            yield batch_of(number)
        raise ValueError('the fourth')


def test_the_next_batch_is_on_its_way(cuda):
    with on_cuda() as seen:
        loader = copied_ahead(Loader(), 'cuda')
        assert len(loader) == 4 and loader.sampler == Loader.sampler
        batches = iter(loader)
        for number in (1, 2, 3):
            batch = next(batches)
            images, = batch['img'].data
            assert (images + 1).shape == (number, 3) and images.is_cuda and batch['img'].stack
            assert batch['img_metas'].data == [['a name'] * number]
            assert len(seen.copies) == min(number + 1, 3)
        for _ in range(2):  # not before it is asked for
            with pytest.raises(ValueError, match='the fourth'):
                next(batches)
        assert set(seen.copies) == {(True, False)} and not seen.host_waits


def test_a_batch_is_not_kept(cuda):
    """Two batches are on the device at a time: the one in use, and the next."""
    with on_cuda():
        batches = iter(copied_ahead([batch_of(1), batch_of(2)], 'cuda'))
        batch = next(batches)
        held = weakref.ref(batch['img'])
        del batch
        next(batches)
        assert held() is None
        with pytest.raises(StopIteration):
            next(batches)


def test_on_the_cpu_a_loader_stays_as_it_is():
    loader = Loader()
    assert copied_ahead(loader, 'cpu') is loader
