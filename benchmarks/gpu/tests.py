"""The tests marked gpu, which compare a GPU with the CPU: what passed, failed, and was skipped.

Before the part would be killed, pytest is interrupted, and reports what it has done.
"""
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from common import ROOT, arguments, report

TO_REPORT = 12  # seconds
INTERRUPTED = 2  # pytest's exit code
# In the order of what is missed most if the time is not enough.
ALL = [f'tests/gpu/test_{name}.py' for name in (
    'parity', 'resume', 'engines', 'tools', 'frozen', 'attention')] + [
    'tests/doctor/test_memory.py', 'tests/gpu/test_low_memory.py']
FEW = ['tests/gpu/test_attention.py', 'tests/gpu/test_parity.py', '-k', 'attention or linear']


def outcomes(path: Path) -> dict[str, dict]:
    """Reads pytest's report: name of a test -> its state, seconds, and the reason."""
    found = {}
    for case in ElementTree.parse(path).iter('testcase'):
        if not case.get('name'):  # of the interruption
            continue
        state, reason = 'passed', ''
        for kind in ('failure', 'error', 'skipped'):
            if (node := case.find(kind)) is not None:
                state = 'skipped' if kind == 'skipped' else 'failed'
                reason = (node.get('message') or '').splitlines()[0][:200]
        name = f'{case.get("classname", "").rpartition(".")[2]}::{case.get("name")}'
        found[name] = dict(state=state, seconds=float(case.get('time', 0)), reason=reason)
    return found


def main() -> None:
    """Runs pytest, and reports."""
    args = arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'report.xml'
        pytest = subprocess.Popen(
            [sys.executable, '-m', 'pytest', '-m', 'gpu', '-q', '-ra', '-p', 'no:cacheprovider',
             '--device', args.device, f'--junitxml={path}', f'--basetemp={folder}/tests',
             *(FEW if args.tiny else ALL)], cwd=ROOT, env=dict(os.environ, OMP_NUM_THREADS='4'))
        try:
            pytest.wait(args.limit - TO_REPORT)
        except subprocess.TimeoutExpired:
            pytest.send_signal(signal.SIGINT)
            pytest.wait()
        found = outcomes(path) if path.exists() else {}
    by_state = {state: [name for name, one in found.items() if one['state'] == state]
                for state in ('passed', 'failed', 'skipped')}
    slowest = sorted(found.items(), key=lambda item: -item[1]['seconds'])[:5]
    figures = {**{state: len(names) for state, names in by_state.items()},
               'skips': {name: found[name]['reason'] for name in by_state['skipped']},
               'slowest_s': {name: one['seconds'] for name, one in slowest}}
    flags = [f'{name}: {found[name]["reason"]}' for name in by_state['failed']]
    if pytest.returncode == INTERRUPTED:
        flags.append(f'interrupted after {args.limit - TO_REPORT:.0f} s: the rest was not run')
    elif pytest.returncode not in (0, 1) or not by_state['passed']:
        flags.append(f'pytest ended with code {pytest.returncode}')
    report(figures, flags, args.json)


if __name__ == '__main__':
    main()
