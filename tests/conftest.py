"""Fixtures that several tests share."""
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data import draw_data
from slurm.cluster import missing

import mmseg_custom  # noqa: F401 - registers, and lets mmseg import without compiled ops


def pytest_report_header() -> str:
    """Says what `make test` leaves out, and why."""
    return f'tests/slurm, no part of `make test`: {missing() or "`make test-slurm` runs it"}'


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


@pytest.fixture
def free_port() -> int:
    """A port of the loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]
