"""The tests marked gpu, which compare a GPU with the CPU: what passed, failed, and was skipped.

Before the part would be killed, pytest is interrupted, and what it has done is reported. The result
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

from common import ROOT, arguments, report

TO_REPORT = 12  # seconds
TO_END = 6  # of them, until an interrupted pytest is killed
INTERRUPTED = 2  # pytest's exit code
# In the order of what is missed most if the time is not enough.
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
    path = os.pathsep.join([os.environ.get('PYTHONPATH', ''), str(Path(__file__).parent)])
    env = dict(os.environ, OMP_NUM_THREADS='4', PYTHONPATH=path, RESULT_LINES=str(lines))
    pytest = subprocess.Popen([sys.executable, '-m', 'pytest', '-p', 'result_lines', *arguments],
                              cwd=ROOT, env=env)
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


def main() -> None:
    """Runs pytest, and reports."""
    args = arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / 'results'
        code = run_pytest(['-m', 'gpu', '-q', '-ra', '-p', 'no:cacheprovider', '--device',
                           args.device, f'--basetemp={folder}/tests',
                           *(FEW if args.tiny else ALL)], args.limit - TO_REPORT, lines)
        found = outcomes(lines)
    by_state = {state: [name for name, one in found.items() if one['state'] == state]
                for state in ('passed', 'failed', 'skipped', 'started')}
    slowest = sorted(found.items(), key=lambda item: -item[1]['seconds'])[:5]
    figures = {**{state: len(by_state[state]) for state in ('passed', 'failed', 'skipped')},
               'skips': {name: found[name]['reason'] for name in by_state['skipped']},
               'slowest_s': {name: one['seconds'] for name, one in slowest}}
    flags = [f'{name}: {found[name]["reason"]}' for name in by_state['failed']]
    unfinished = f', in {by_state["started"][0]}' if by_state['started'] else ''
    if code == INTERRUPTED:
        flags.append(f'interrupted after {args.limit - TO_REPORT:.0f} s{unfinished}: the rest was '
                     'not run')
    elif code not in (0, 1) or not by_state['passed']:
        flags.append(f'pytest ended with code {code}{unfinished}')
    report(figures, flags, args.json)


if __name__ == '__main__':
    main()
