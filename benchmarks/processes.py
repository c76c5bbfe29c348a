"""Calls of functions in processes of their own, whose memory or start is measured."""
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

SCRIPT = """
import importlib, json, sys
import mmseg_custom  # before mmseg, which needs its stand-in
module, name, arguments = sys.argv[1:]
function = getattr(importlib.import_module(module), name)
print(json.dumps(function(*json.loads(arguments))))
"""


def call_in_process(function: Callable, *arguments: Any) -> Any:
    """Calls a function of a module in a new process; arguments and result pass as JSON.

    Raises:
        RuntimeError: If it failed, with the end of what it said.
    """
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, function.__module__, function.__name__,
         json.dumps(arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'{function.__name__} in a process of its own: '
                           + ' '.join(done.stderr.strip().splitlines()[-3:]))
    return json.loads(done.stdout.splitlines()[-1])
