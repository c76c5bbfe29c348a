"""Bars on a terminal, and lines elsewhere."""
import sys

import pytest
from helpers.terminal import Terminal

from mmseg_custom.progress import progress_bar


@pytest.mark.parametrize('term', ['dumb', None])
def test_without_a_terminal_a_bar_is_lines(monkeypatch, capsys, term):
    if term:
        monkeypatch.setattr(sys, 'stderr', Terminal())
        monkeypatch.setenv('TERM', term)
    with progress_bar(4, 'image', 'evaluation') as bar:
        for passed in (40, 2, 10, 3):  # seconds
            bar.start_t -= passed
            bar.last_print_t -= passed
            bar.update()
    text = sys.stderr.text if term else capsys.readouterr().err
    assert '\r' not in text and [line.split(',')[0] for line in text.splitlines()] == [
        f'evaluation: {n} of 4 images' for n in (0, 1, 4)]


def test_a_bar_without_standard_error_is_not_shown(monkeypatch):
    monkeypatch.setattr(sys, 'stderr', None)  # as Python sets it where it is closed (2>&-)
    with progress_bar(2, 'image') as bar:
        bar.update()


def test_bytes_are_shown_in_large_units(capsys):
    with progress_bar(4_000_000, 'B', 'writing') as bar:
        bar.update(4_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith('writing: 4.00MB of 4.00MB, ') and '\r' not in ''.join(lines)
