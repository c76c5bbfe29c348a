"""A training step of the four tiny recipes, against another checkout of the project.

    git worktree add /tmp/before COMMIT
    python -m benchmarks tiny_steps --against /tmp/before

Each checkout has a process of one thread, which takes steps of the recipe's own runner on a batch
in memory. They take turns; on the CPU a sample is CPU time, which other processes do not lengthen.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import _tiny_steps
from benchmarks.context import Context, at_least
from benchmarks.execution import ROOT
from benchmarks.registry import benchmark

RECIPES = ('linear_probing', 'head_tuning', 'few_shot', 'full_tuning')
OTHER = 'the other checkout'
FAST = 'engine.fast, engine.compile=False'
STEPS, ROUNDS, WARM_UP = 5, 9, 3


class Stepper:
    """The process of a checkout.

    Args:
        root: Folder of the checkout.
        device: 'cuda' or 'cpu'.
    """

    def __init__(self, root: Path, device: str):
        self.root = root
        self._process = subprocess.Popen(
            [sys.executable, _tiny_steps.__file__, device], cwd=root, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'})

    def seconds(self, recipe: str, count: int, device: str) -> float:
        """Takes steps; returns the seconds of one, of the CPU where that computes.

        Raises:
            RuntimeError: If the process ended.
        """
        assert self._process.stdin and self._process.stdout
        print(recipe, count, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f'{self.root}: {recipe} failed: see log.txt')
        return json.loads(answer)[device == 'cuda']

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


@benchmark('A step of the four tiny recipes, against another checkout (--against)', minutes=8,
           suite=())
def case(run: Context) -> None:
    """Measures both checkouts in turns."""
    if run.against is None:
        run.skip('it compares with another checkout of the project: --against CHECKOUT')
    steppers = {'ours': Stepper(ROOT, run.device), OTHER: Stepper(run.against, run.device)}
    steps, rounds = (1, 2) if run.tiny else (STEPS, ROUNDS)
    for recipe in RECIPES:
        ways = {'ours': (steppers['ours'], recipe), FAST: (steppers['ours'], f'{recipe}+'),
                OTHER: (steppers[OTHER], recipe)}
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for stepper, name in ways.values():
            stepper.seconds(name, 1 if run.tiny else WARM_UP, run.device)
        for number in range(rounds):
            for way, (stepper, name) in list(ways.items())[::1 if number % 2 else -1]:
                samples[way].append(stepper.seconds(name, steps, run.device))
        notes = '' if run.on_gpu else 'CPU time, one thread'
        run.row(f'step of {recipe}, tiny', 'ms', samples['ours'], {OTHER: samples[OTHER]},
                targets=[at_least(OTHER, 1.3)], notes=notes)
        run.row(f'step of {recipe}, tiny, {FAST}', 'ms', samples[FAST], {OTHER: samples[OTHER]},
                notes=notes)
    for stepper in steppers.values():
        stepper.close()
