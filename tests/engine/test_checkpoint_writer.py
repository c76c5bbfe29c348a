"""Checkpoints that are written while the training goes on, one at a time."""
import errno
import logging
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from helpers.logs import logged

from mmseg_custom.engine import checkpoint_writer
from mmseg_custom.engine.checkpoint_writer import (
    CheckpointWriter,
    Outcome,
    save_checkpoint,
    wait_for_checkpoint,
)
from mmseg_custom.files import SaveError
from mmseg_custom.units import GIB

LOGGER = logging.getLogger('mmseg')


@dataclass(frozen=True)
class GatedSave:
    """A checkpoint that is written once its gate is open."""
    path: str
    content: dict
    written: list
    gate: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    by_all_ranks = False

    def write(self, group=None):
        assert self.gate.wait(20)
        if self.error is not None:
            raise self.error
        self.written.append((self.path, self.content['x'].tolist()))


@pytest.fixture
def writer(monkeypatch):
    """A writer on a host with 8 GiB free, which writes all in the background."""
    monkeypatch.setattr(checkpoint_writer, 'free_host_memory', lambda: 8 * GIB)
    found = CheckpointWriter(LOGGER)
    found.background = True
    return found


def no_space(path: str) -> SaveError:
    return SaveError(errno.ENOSPC, 'was not written', path)


def test_the_copy_is_of_the_moment_and_the_next_save_waits(writer):
    weights, written, outcomes = torch.zeros(2), [], []
    first = GatedSave('iter_2.pth', dict(x=weights), written)
    writer.write(first, 0., outcomes.append)
    weights.add_(1)
    writer.poll()
    assert not written and not outcomes

    threading.Timer(.3, first.gate.set).start()
    second = GatedSave('iter_4.pth', dict(x=weights), written)
    second.gate.set()
    with logged() as lines:
        writer.write(second, 0., outcomes.append)
        weights.add_(1)
        writer.wait()
    assert written == [('iter_2.pth', [0, 0]), ('iter_4.pth', [1, 1])]
    assert [outcome.path for outcome in outcomes] == ['iter_2.pth', 'iter_4.pth']
    assert 'waited 0.' in lines[0] and lines[0].endswith('until iter_2.pth was written')
    assert all(outcome.error is None and outcome.wrote is not None for outcome in outcomes)
    assert ': training waited ' in str(outcomes[0]) and ', written in 0.' in str(outcomes[0])


def test_a_failed_write_is_told(writer):
    outcomes = []
    save = GatedSave('iter_2.pth', dict(x=torch.zeros(1)), [], error=no_space('iter_2.pth'))
    save.gate.set()
    writer.write(save, 0., outcomes.append)
    writer.wait()
    assert outcomes[0].error is save.error and outcomes[0].wrote is not None


def test_anything_else_is_raised_unless_the_run_ends_by_an_error(writer):
    def start():
        save = GatedSave('iter_2.pth', dict(x=torch.zeros(1)), [], error=ValueError('a fault'))
        save.gate.set()
        writer.write(save, 0., lambda outcome: None)
    start()
    with pytest.raises(ValueError, match='a fault'):
        writer.wait()
    start()
    with logged() as lines:
        writer.close()
    assert lines[-1] == 'the checkpoint that was being written is lost: a fault'


def test_at_once_what_fails_is_raised_or_told(writer):
    writer.background, outcomes = False, []
    save = GatedSave('iter_2.pth', dict(x=torch.zeros(1)), [], error=no_space('iter_2.pth'))
    save.gate.set()
    with pytest.raises(SaveError):
        writer.write(save, 0., None)
    writer.write(save, 0., outcomes.append)
    assert outcomes[0].error is save.error and outcomes[0].wrote is None


@pytest.mark.parametrize('nbytes, background', [(GIB - 4, False), (GIB, True), (7 * GIB, False)])
def test_large_ones_where_there_is_room(writer, monkeypatch, nbytes, background):
    """A weight of no memory stands for so many bytes."""
    writer.background = None
    monkeypatch.setattr(checkpoint_writer, 'bytes_of', lambda content: nbytes)
    monkeypatch.setattr(checkpoint_writer.HostCopies, 'bytes_to_take',
                        lambda *args, pinned=False: nbytes)
    outcomes, save = [], GatedSave('iter_2.pth', dict(x=torch.zeros(1)), [])
    save.gate.set()
    with logged() as lines:
        writer.write(save, 0., outcomes.append)
        writer.wait()
        writer.write(save, 0., outcomes.append)
        writer.wait()
    assert [outcome.wrote is not None for outcome in outcomes] == [background] * 2
    room = [line for line in lines if 'no room for a copy' in line]
    assert len(room) == (nbytes == 7 * GIB) and all('7 GiB on ' in line for line in room)


def test_memory_that_is_not_there_after_all(writer, monkeypatch):
    def copy(self, content):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nmore")
    monkeypatch.setattr(checkpoint_writer.HostCopies, 'copy', copy)
    outcomes, written = [], []
    save = GatedSave('iter_2.pth', dict(x=torch.zeros(1)), written)
    save.gate.set()
    with logged() as lines:
        writer.write(save, 0., outcomes.append)
    assert written and outcomes[0].wrote is None
    assert "can't allocate memory" in lines[0] and 'more' not in lines[0]


def test_other_runners_write_at_once():
    outcomes = []
    runner = SimpleNamespace(save_checkpoint=lambda folder, **options: f'{folder}/iter_2.pth')
    wait_for_checkpoint(runner)
    save_checkpoint(runner, 'run', outcomes.append, create_symlink=False)
    assert outcomes[0].path == 'run/iter_2.pth' and outcomes[0].error is None

    def fail(folder, **options):
        raise no_space('iter_2.pth')
    save_checkpoint(SimpleNamespace(save_checkpoint=fail), 'run', outcomes.append)
    assert outcomes[1].error is not None and str(Outcome('a', waited=12.34)).endswith('12 s')
