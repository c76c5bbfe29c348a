import pytest
from mmcv import Config

from mmseg_custom.engine.batch import Batch, resolve_batch, split_batch
from mmseg_custom.errors import InputError


@pytest.mark.parametrize('total, ranks, samples, split', [
    (16, 8, 2, (2, 1)), (16, 1, 2, (2, 8)), (16, 4, 2, (2, 2)), (16, 2, 3, (2, 4)),
    (16, 16, 2, (1, 1)), (24, 4, 4, (3, 2)), (7, 1, 4, (1, 7))])
def test_batch_is_split(total, ranks, samples, split):
    batch = split_batch(total, ranks, samples)
    assert (batch.samples, batch.accumulation) == split and batch.images == total


@pytest.mark.parametrize('total, ranks, near', [(16, 3, '15 or 18'), (2, 4, '4'), (0, 1, '1')])
def test_batch_that_cannot_be_split(total, ranks, near):
    with pytest.raises(InputError, match=f'a multiple of the {ranks} .* e.g. {near}'):
        split_batch(total, ranks, 2)


def config(**keys) -> Config:
    return Config(dict(data=dict(samples_per_gpu=3, workers_per_gpu=0), **keys))


def test_total_batch_comes_before_accumulation():
    cfg = config(total_batch=16, accumulation=5)
    assert resolve_batch(cfg, ranks=2) == Batch(samples=2, ranks=2, accumulation=4)
    assert cfg.pretty_text == config(total_batch=16, accumulation=5).pretty_text
    assert resolve_batch(config(accumulation=5), ranks=2) == Batch(3, 2, 5)
    assert resolve_batch(config(), ranks=2) == Batch(3, 2, 1)


@pytest.mark.parametrize('keys, message', [
    (dict(accumulation=0), 'accumulation=0: expected 1 or more'),  # 0 is not "one"
    (dict(accumulation='2'), "accumulation='2'"),
    (dict(total_batch=0), 'total-batch 0: expected a multiple of the 1'),  # nor is it "not given"
    (dict(accumulation=2, optimizer_config=dict(type='Fp16OptimizerHook')),
     'does not accumulate 2'),
])
def test_wrong_input(keys, message):
    with pytest.raises(InputError, match=message):
        resolve_batch(config(**keys), ranks=1)
