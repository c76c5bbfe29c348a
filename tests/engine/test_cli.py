"""How a tool ends; as a script, this file is one of two processes."""
import contextlib
import os

import pytest
import torch.distributed as dist

from mmseg_custom.engine import cli


def test_an_unexpected_error_ends_its_process_at_once(zygote):
    """Rank 0 waits for rank 1, which must not wait for rank 0 in turn, as nccl's shutdown does."""
    text = zygote.run(__file__, ranks=2, code=1)
    assert "AttributeError: 'NoneType' object has no attribute 'shape'" in text
    assert 'leaves the group' not in text
    assert 'Traceback' in text and 'error [rank 0]: the connection to another process' in text


def test_a_rank_that_is_done_is_not_taken_apart(monkeypatch):
    """Threads of gloo may still free tensors, and abort the process while Python ends."""
    codes = []
    monkeypatch.setattr(cli, 'get_dist_info', lambda: (1, 2))
    monkeypatch.setattr(os, '_exit', codes.append)
    cli.run(lambda: None)
    assert codes == [0]


@pytest.mark.parametrize('lines', [1, 10_000])
def test_a_reader_that_has_ended_is_no_error(capfd, lines):
    """`| head` ends before the last line, or before what is still in Python's buffer."""
    reader, writer = os.pipe()
    os.close(reader)
    kept = os.dup(1)
    os.dup2(writer, 1)
    try:
        with open(1, 'w', closefd=False) as out, contextlib.redirect_stdout(out):
            with pytest.raises(SystemExit) as end:
                cli.run(lambda: [print('a line') for _ in range(lines)])
    finally:
        os.dup2(kept, 1)
    assert end.value.code == 141 and not capfd.readouterr().err


def test_a_broken_pipe_elsewhere_is_an_error():
    with pytest.raises(BrokenPipeError):
        cli.run(lambda: exec('raise BrokenPipeError'))


def fail() -> None:
    """Fails on rank 1, on which rank 0 waits."""
    dist.init_process_group('gloo')
    if dist.get_rank() == 1:
        dist.destroy_process_group = lambda: print('leaves the group')  # where nccl would wait
        None.shape  # noqa: B018
    dist.monitored_barrier()


if __name__ == '__main__':
    cli.run(fail)
