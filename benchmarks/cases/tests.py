"""The tests marked gpu, which compare a GPU with the CPU: what passed, failed, and was skipped.

Before the case would be killed, pytest is interrupted, and what it has done is reported. The result
of each test is written when it is known (result_lines.py), so that a test that crashes the process
or hangs in a driver costs itself and the following ones only.
"""
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.context import Context
from benchmarks.execution import ROOT
from benchmarks.registry import benchmark

TO_END = 6  # seconds until an interrupted pytest is killed
INTERRUPTED = 2  # pytest's exit code
# The most important ones first, in case time runs out.
ALL = [f'tests/gpu/test_{name}.py' for name in (
    'parity', 'resume', 'engines', 'tools', 'frozen', 'attention')] + [
    'tests/doctor/test_memory.py', 'tests/gpu/test_low_memory.py']
FEW = ['tests/gpu/test_attention.py', 'tests/gpu/test_parity.py', '-k', 'attention or linear']


def run_pytest(arguments: list[str], seconds: float, lines: Path) -> int:
    """Runs pytest for at most some seconds; returns its exit code, INTERRUPTED after that.

    Args:
        arguments: Arguments of pytest.
        seconds: Time after which it is interrupted, and killed a little later.
        lines: File that the results are written to.
    """
    path = os.pathsep.join([os.environ.get('PYTHONPATH', ''), str(ROOT / 'benchmarks')])
    env = dict(os.environ, OMP_NUM_THREADS='4', PYTHONPATH=path, RESULT_LINES=str(lines))
    pytest = subprocess.Popen([sys.executable, '-m', 'pytest', '-p', 'result_lines', *arguments],
                              cwd=ROOT, env=env, stdout=sys.stderr)
    try:
        return pytest.wait(seconds)
    except subprocess.TimeoutExpired:
        pytest.send_signal(signal.SIGINT)
    try:
        pytest.wait(TO_END)
    except subprocess.TimeoutExpired:
        pytest.kill()
        pytest.wait()
    return INTERRUPTED


def outcomes(path: Path) -> dict[str, dict]:
    """Reads what result_lines.py wrote: name of a test -> its state, seconds, and the reason.

    A test that did not end has the state 'started'.
    """
    found: dict[str, dict] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        entry = json.loads(line)
        test = found.setdefault(entry['name'], dict(state='started', seconds=0., reason=''))
        test['seconds'] += entry['seconds']
        test['state'] = entry['state'] or test['state']
        test['reason'] = entry['reason'] or test['reason']
    return found


@benchmark('Tests marked gpu, which compare the card with the CPU', minutes=4.5, suite=('cuda',),
           order=90)
def case(run: Context) -> None:
    """Runs pytest, and counts what passed."""
    limit = min(run.time_left() - TO_END, 3600)
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / 'results'
        code = run_pytest(['-m', 'gpu', '-q', '-ra', '-p', 'no:cacheprovider', '--device',
                           run.device, f'--basetemp={folder}/tests',
                           *(FEW if run.tiny else ALL)], limit, lines)
        found = outcomes(lines)
    by_state = {state: [name for name, one in found.items() if one['state'] == state]
                for state in ('passed', 'failed', 'skipped', 'started')}
    slowest = sorted(found.items(), key=lambda item: -item[1]['seconds'])[:5]
    run.fact(**{state: len(by_state[state]) for state in ('passed', 'failed', 'skipped')},
             skips={name: found[name]['reason'] for name in by_state['skipped']},
             slowest_s={name: round(one['seconds'], 1) for name, one in slowest})
    for name in by_state['failed']:
        run.wrong(f'{name}: {found[name]["reason"]}')
    unfinished = f', in {by_state["started"][0]}' if by_state['started'] else ''
    if code == INTERRUPTED:
        run.wrong(f'interrupted after {limit:.0f} s{unfinished}: the rest was not run')
    elif code not in (0, 1) or not by_state['passed']:
        run.wrong(f'pytest ended with code {code}{unfinished}')
