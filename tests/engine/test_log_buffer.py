import sys

import pytest
import torch
import torch.distributed as dist
from mmcv.runner import LogBuffer

from mmseg_custom.engine import log_buffer
from mmseg_custom.engine.log_buffer import DeferredLogBuffer


def fill(buffer, kind):
    for i in range(5):
        buffer.update({'loss': kind(i / 7), 'acc': kind(3. * i)}, count=i + 1)
        buffer.update({'time': 0.5 * i})
    return buffer


@pytest.mark.parametrize('n', [0, 2])
def test_tensors_average_like_numbers(n):
    mine, theirs = fill(DeferredLogBuffer(), torch.tensor), fill(LogBuffer(), float)
    mine.average(n)
    theirs.average(n)
    assert mine.output == pytest.approx(theirs.output)
    assert all(isinstance(value, float) for history in mine.val_history.values()
               for value in history)


def test_cleared_tensors_are_not_read():
    buffer = fill(DeferredLogBuffer(), torch.tensor)
    buffer.clear()
    buffer.update({'loss': torch.tensor(2.)})
    buffer.average()
    assert buffer.output == {'loss': 2.}


def test_what_nothing_logs_does_not_pile_up(monkeypatch):
    monkeypatch.setattr(log_buffer, 'MAX_UNREAD', 10)
    buffer = DeferredLogBuffer()
    for i in range(25):
        buffer.update({'loss': torch.tensor(float(i))})
        assert sum(isinstance(value, torch.Tensor) for value in buffer.val_history['loss']) < 10
    assert buffer.val_history['loss'][:20] == list(map(float, range(20)))


def average_on_two_ranks(path: str) -> None:
    dist.init_process_group('gloo')
    rank, buffer = dist.get_rank(), DeferredLogBuffer()
    for i in range(3):
        buffer.update({'loss': torch.tensor(i + 10. * rank)}, mean_over_ranks=True)
        buffer.update({'grad_norm': torch.tensor(rank + 1.)})
    buffer.average()
    other = DeferredLogBuffer()
    other.update({f'loss of rank {rank}': torch.tensor(1.)}, mean_over_ranks=True)
    message = ''
    try:
        other.average()
    except RuntimeError as error:
        message = str(error)
    output = {name: float(value) for name, value in buffer.output.items()}
    torch.save((output, message), f'{path}.{rank}')
    dist.destroy_process_group()


def test_losses_are_means_over_the_ranks(zygote, tmp_path):
    zygote.run(__file__, tmp_path / 'out', ranks=2)
    for rank in (0, 1):
        output, message = torch.load(tmp_path / f'out.{rank}')
        assert output == {'loss': 6., 'grad_norm': rank + 1.}
        assert 'different names' in message and 'rank 1: loss of rank 1' in message


if __name__ == '__main__':
    average_on_two_ranks(sys.argv[1])
