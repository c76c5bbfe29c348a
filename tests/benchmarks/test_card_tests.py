"""The benchmark that runs the tests marked gpu: what it reports if they crash or hang."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.commands import ROOT
from helpers.runs import wait_for

from benchmarks.cases import tests as card_tests


@pytest.mark.parametrize('end, code', [
    ('os.kill(os.getpid(), signal.SIGSEGV)', -signal.SIGSEGV),
    ('signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)', 2)])
def test_results_of_tests_survive_a_crash_and_a_hang(tmp_path, monkeypatch, end, code):
    monkeypatch.setattr(card_tests, 'TO_END', 0.2)
    (tmp_path / 'test_some.py').write_text(
        'import os, signal, time, pytest\n'
        'def test_one(): pass\n'
        'def test_two(): assert 1 == 2\n'
        'def test_three(): pytest.skip("no such card")\n'
        f'def test_four(): {end}\n'
        'def test_five(): pass\n')
    lines = tmp_path / 'results'
    options = ['-c', '/dev/null', '-p', 'no:cacheprovider', str(tmp_path / 'test_some.py')]
    assert card_tests.run_pytest(options, 4, lines) == code
    found = card_tests.outcomes(lines)
    assert {name: (one['state'], one['reason']) for name, one in found.items()} == {
        'test_some::test_one': ('passed', ''),
        'test_some::test_two': ('failed', 'assert 1 == 2'),
        'test_some::test_three': ('skipped', 'no such card'),
        'test_some::test_four': ('started', '')}


def test_ranks_of_a_killed_test_end(tmp_path):
    """They have sessions of their own, and would hold the GPU."""
    path = tmp_path / 'rank'
    rank = ('import os, pathlib, time\n'
            'from helpers.zygote import die_with_parent\n'
            'os.setsid(); die_with_parent()\n'
            f'pathlib.Path({str(path)!r}).write_text(f"{{os.getpid()}}.")\n'
            'time.sleep(60)')
    test = subprocess.Popen(
        [sys.executable, '-c', f'import os, time\nif os.fork() == 0: exec({rank!r})\n'
         'time.sleep(60)'], env={**os.environ, 'PYTHONPATH': str(ROOT / 'tests')})
    wait_for(path, '.')
    pid = path.read_text().removesuffix('.')
    test.kill()
    test.wait()
    end = time.monotonic() + 10
    while Path(f'/proc/{pid}').exists() and 'Z' not in Path(f'/proc/{pid}/stat').read_text():
        assert time.monotonic() < end
        time.sleep(0.02)


