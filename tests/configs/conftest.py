"""Fixtures for tests of configs."""
import os
import tempfile

import pytest


@pytest.fixture(scope='package', autouse=True)
def _copies_of_configs_in_memory():
    """Lets mmcv's copies of a config and its bases, up to ten for each, stay off the disk.

    They take most of the time that reading a config takes, and there are hundreds of readings.
    """
    before, memory = tempfile.tempdir, '/dev/shm'
    if os.access(memory, os.W_OK):
        tempfile.tempdir = memory
    yield
    tempfile.tempdir = before
