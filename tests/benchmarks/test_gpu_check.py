"""The check for a GPU, tried on the CPU: its parts, what stops it and what does not."""
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.commands import ROOT, run
from helpers.runs import wait_for

SCRIPT = ROOT / 'benchmarks/gpu_check.py'
# Takes the options of a part; the file that it writes is whole or not there.
FAKE = """
import json, sys, time
path = sys.argv[sys.argv.index('--json') + 1]
{before}
open(path, 'w').write(json.dumps(dict(figures=dict(ms=1.5, of=dict(a=2)), flags={flags})))
{after}
"""


@pytest.fixture
def check(monkeypatch, tmp_path, capsys):
    """Runs the check with parts of a test: (parts, *options) -> (code, summary, output)."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    sys.modules.pop('gpu_check', None)
    import gpu_check

    def check(parts: dict, *options: str) -> tuple[int, list, str]:
        monkeypatch.setattr(gpu_check, 'PARTS', {
            name: gpu_check.Part((str(write(tmp_path / f'{name}.py', **script)),), limit)
            for name, (script, limit) in parts.items()})
        monkeypatch.setattr(sys, 'argv', ['gpu_check.py', '--device', 'cpu', '--out',
                                          str(tmp_path / 'out'), *options])
        with pytest.raises(SystemExit) as end:
            gpu_check.main()
        return end.value.code, json.loads((tmp_path / 'out/summary.json').read_text()), (
            capsys.readouterr().out)
    return check


def write(path: Path, before: str = '', flags: tuple = (), after: str = '') -> Path:
    path.write_text(FAKE.format(before=before, flags=list(flags), after=after))
    return path


def test_a_part_that_fails_stops_no_other(check, tmp_path):
    code, summary, out = check(dict(
        good=({}, 30), broken=(dict(before='raise ValueError'), 30),
        wrong=(dict(flags=['too large'], after='sys.exit(3)'), 30),
        crashed=(dict(flags=['too slow'], after='sys.exit(1)'), 30),
        slow=(dict(after='time.sleep(60)'), 2), last=({}, 30)))
    states = {one['part']: one['state'] for one in summary}
    assert states == dict(good='ok', broken='failed', wrong='wrong', crashed='failed',
                          slow='timed out', last='ok')
    assert code == 1
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {
        'good.json', 'wrong.json', 'crashed.json', 'slow.json', 'last.json', 'summary.json',
        'log.txt'}
    assert '! too large' in out and '! exit code 1: see log.txt' in out
    assert 'of.a ' in out and 'ValueError' in (tmp_path / 'out/log.txt').read_text()
    assert '! too slow' in out
    slow = summary[4]
    assert slow['figures'] and slow['flags'] == ['killed after 2 s']  # what it wrote is kept


def test_what_has_no_time_is_not_run(check):
    code, summary, out = check(dict(one=({}, 30), two=({}, 30)), '--minutes', '0.1')
    assert code == 1 and [one['state'] for one in summary] == ['not run'] * 2
    assert '! no time was left' in out


def test_wrong_input_is_one_line(tmp_path):
    options = ['python', SCRIPT, '--out', tmp_path / 'out']
    text = run(*options, '--parts', 'machine,none', code=2)
    assert text.splitlines()[-1].endswith('unknown none; expected some of machine, tests, '
                                          'linear_probing, evaluation, full_tuning, head_tuning')
    if not torch.cuda.is_available():
        text = run(*options, code=1)
        assert text.startswith('error: no CUDA GPU that PyTorch') and text.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_parts_can_be_chosen(check):
    code, summary, _ = check(dict(one=({}, 30), two=({}, 30)), '--parts', 'two')
    assert code == 0 and [one['part'] for one in summary] == ['two']


@pytest.mark.slow
@pytest.mark.parametrize('parts', [
    'evaluation,full_tuning', 'machine,linear_probing,head_tuning,tests'])
def test_on_the_cpu(tmp_path, parts):
    run('python', SCRIPT, '--device', 'cpu', '--tiny', '--parts', parts, '--out', tmp_path)
    for part in parts.split(','):
        content = json.loads((tmp_path / f'{part}.json').read_text())
        assert content['figures'] and content['flags'] == []
        if part.endswith('_tuning') or part == 'linear_probing':
            assert content['figures']['share_of_matmul'] > 0 < content['figures']['predicted_ms']


@pytest.mark.parametrize('end, code', [
    ('os.kill(os.getpid(), signal.SIGSEGV)', -signal.SIGSEGV),
    ('signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)', 2)])
def test_results_of_tests_survive_a_crash_and_a_hang(tmp_path, monkeypatch, end, code):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks/gpu'))
    tests = SimpleNamespace(**runpy.run_path(str(ROOT / 'benchmarks/gpu/tests.py')))
    tests.run_pytest.__globals__['TO_END'] = 0.2
    (tmp_path / 'test_some.py').write_text(
        'import os, signal, time, pytest\n'
        'def test_one(): pass\n'
        'def test_two(): assert 1 == 2\n'
        'def test_three(): pytest.skip("no such card")\n'
        f'def test_four(): {end}\n'
        'def test_five(): pass\n')
    lines = tmp_path / 'results'
    options = ['-c', '/dev/null', '-p', 'no:cacheprovider', str(tmp_path / 'test_some.py')]
    assert tests.run_pytest(options, 4, lines) == code
    found = tests.outcomes(lines)
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


def test_packages_are_pure_and_complete(tmp_path, monkeypatch):
    """All that imports of the packed ones need is packed, or comes with PyTorch's image."""
    pack = SimpleNamespace(**runpy.run_path(str(ROOT / 'benchmarks/gpu/pack.py')))
    folder = tmp_path / 'packages'
    (folder / 'old').mkdir(parents=True)
    versions = pack.pack(folder)
    assert versions['mmcv-full'] == '1.7.2' and not (folder / 'old').exists()
    assert {'mmcv', 'mmseg', 'addict', 'yapf', 'prettytable', 'VERSIONS'} <= {
        path.name for path in folder.iterdir()}
    assert not [path for path in folder.rglob('*') if path.suffix == '.so']
    run('python', '-c', 'import sys; sys.modules["mmcls"] = None\n'
        'import mmseg_custom, mmcv, mmseg.apis, mmseg.models\n'
        f'assert all(m.__file__.startswith({str(folder)!r}) for m in (mmcv, mmseg))',
        PYTHONPATH=f'{folder}:{ROOT}')


def test_compiled_packages_are_refused():
    pack = SimpleNamespace(**runpy.run_path(str(ROOT / 'benchmarks/gpu/pack.py')))
    files = [Path('mmcv/_ext.cpython-311-x86_64-linux-gnu.so'), Path('mmcv/__init__.py')]
    for name, refused in (('mmcv-full', True), ('wcwidth', False)):
        found = SimpleNamespace(files=files, metadata=dict(Name=name))
        if refused:
            with pytest.raises(SystemExit, match='mmcv-full has compiled files'):
                pack.files_of(found)
        else:
            assert pack.files_of(found) == files[1:]
