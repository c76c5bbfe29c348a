"""Fixtures that several tests share."""
import gc
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from helpers.bare_environment import BareEnvironment
from helpers.commands import ROOT, free_port
from helpers.data import draw_data
from helpers.logs import reset_loggers
from helpers.pauses import draw_no_curves, end_without_a_pause, leave_configs_unformatted
from helpers.unavailable import skip_if_unavailable
from helpers.zygote import Zygote
from slurm.cluster import missing

import mmseg_custom  # noqa: F401 - registers, and lets mmseg import without compiled ops

# The tensors are tiny: a second thread costs more than it brings, above all on busy machines.
torch.set_num_threads(1)
end_without_a_pause()
leave_configs_unformatted()
draw_no_curves()
# Each process that a test starts would compile the package anew, and each run all tests.
os.environ.pop('PYTHONDONTWRITEBYTECODE', None)
sys.dont_write_bytecode = False


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options of tests/gpu and tests/faults."""
    parser.addoption('--device', choices=('cuda', 'cpu'), default='cuda',
                     help='device of the tests marked gpu; cpu tries the tests themselves')
    parser.addoption('--only', help='cases of tests/faults whose name holds this')


def pytest_report_header() -> str:
    """Says what `make test` leaves out, and why."""
    return f'tests/slurm, no part of `make test`: {missing() or "`make test-slurm` runs it"}'


def pytest_collection_finish() -> None:
    """Spares the garbage collector the modules of all tests and libraries, which stay."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """Skips a test that fails for want of an optional package, or of a newer PyTorch."""
    report = yield
    skip_if_unavailable(report, str(item.path), item.location[1] or 0)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """Skips a file whose imports fail for the same reasons."""
    report = yield
    skip_if_unavailable(report, str(collector.path), 0)
    return report


@pytest.fixture(scope='session')
def shared_data(tmp_path_factory) -> Path:
    """A data set that no test may change."""
    return draw_data(tmp_path_factory.mktemp('data'))


@pytest.fixture
def own_data(tmp_path) -> Path:
    """A data set that the test may break."""
    return draw_data(tmp_path / 'data')


@pytest.fixture(autouse=True)
def _same_generators():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope='session')
def zygote():
    """The process whose forks run scripts, one or several ranks of each."""
    process = Zygote()
    yield process
    process.close()


@pytest.fixture(scope='session')
def bare_environment(tmp_path_factory) -> BareEnvironment:
    """An environment without mmcv and mmseg, with what exported segmentors need."""
    return BareEnvironment(tmp_path_factory.mktemp('environment') / 'bare')


@pytest.fixture
def process_group():
    """A process group of this process alone."""
    dist.init_process_group('gloo', f'tcp://127.0.0.1:{free_port()}', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def run_tool(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs a tool in this process: (name, *arguments) -> (exit code, stdout, stderr)."""
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    reset_loggers(monkeypatch)

    def run_tool(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return run_tool
