"""Fixtures for tests of the commands."""
import pytest
from helpers.zygote import Zygote


@pytest.fixture(scope='session')
def zygote():
    """The process whose forks are runs of tools/train.py."""
    process = Zygote()
    yield process
    process.close()
