"""What several processes of a host would say is said by one of them."""
import pytest

from mmseg_custom.distributed.said_once import first_to_say, rank_by_launcher
from mmseg_custom.engine import cli
from mmseg_custom.errors import InputError


@pytest.fixture
def two_ranks(monkeypatch):
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('WORLD_SIZE', '2')


def test_what_all_say_is_said_by_the_first(two_ranks):
    assert rank_by_launcher() == (1, 2)
    with first_to_say('no such file', linger=0) as first, first_to_say('no such file') as second:
        with first_to_say('another', linger=0) as another:
            assert (first, second, another) == (True, False, True)
    with first_to_say('no such file', linger=0) as later:
        assert later


def test_a_process_alone_always_speaks(monkeypatch):
    monkeypatch.delenv('WORLD_SIZE', raising=False)
    with first_to_say('no such file') as first, first_to_say('no such file') as second:
        assert first and second


def test_a_tool_is_silent_about_what_another_rank_says(two_ranks, capsys):
    def fail():
        raise InputError('config x has no model')

    with first_to_say('config x has no model\n', linger=0), pytest.raises(SystemExit) as end:
        cli.run(fail)
    assert end.value.code == 1 and capsys.readouterr().err == ''
    with first_to_say('config y has no model\n', linger=0), pytest.raises(SystemExit):
        cli.run(fail)
    assert capsys.readouterr().err == 'error [rank 1]: config x has no model\n'
