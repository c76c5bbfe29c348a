"""Runs of helpers/traces.py that are compared."""
import json
from pathlib import Path

import torch
from helpers.zygote import Zygote


class Traces(dict[str, dict]):
    """What runs gave, by their names; each is run when a test asks for it.

    Args:
        zygote: Process that runs them in forks.
        folder: Folder for their results.
        runs: Options of each, see helpers/traces.py.
    """

    def __init__(self, zygote: Zygote, folder: Path, runs: dict[str, dict]):
        super().__init__()
        self._zygote, self._folder, self._runs = zygote, folder, runs

    def __missing__(self, name: str) -> dict:
        self._zygote.run('tests/helpers/traces.py', self._folder,
                         f'{name}={json.dumps(self._runs[name])}')
        self[name] = torch.load(self._folder / f'{name}.pth')
        return self[name]


def assert_same(traces: dict, a: str, b: str, loss: float = 1e-5, weights: float = 1e-4,
                norms: float = 1e-3) -> None:
    """Compares losses, gradient norms, weights and labels of two runs."""
    a, b = traces[a], traces[b]
    assert torch.allclose(torch.tensor(a['losses']), torch.tensor(b['losses']), rtol=loss, atol=0)
    assert torch.allclose(torch.tensor(a['norms']), torch.tensor(b['norms']), rtol=norms, atol=0)
    for name in a['state_dict']:
        torch.testing.assert_close(b['state_dict'][name], a['state_dict'][name], rtol=loss,
                                   atol=weights, msg=lambda text, name=name: f'{name}: {text}')
    assert (a['map'] == b['map']).float().mean() > 0.95
