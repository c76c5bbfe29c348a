"""Loaders of evaluations and trainings."""
import pytest
from helpers.data import SMALL_LINEAR, prepare, write_config

from mmseg_custom.engine.loaders import build_test_loader, build_train_loader
from mmseg_custom.engine.randomness import SeededSamples


@pytest.mark.parametrize('options', [
    "data['persistent_workers'] = True", "data['prefetch_factor'] = 2", "data['timeout'] = 60"])
def test_options_of_workers_do_not_stop_a_run_without_workers(shared_data, tmp_path, options):
    """Setting workers to 0 is what a run advises that has lost one."""
    run = prepare(write_config(tmp_path / 'some.py', shared_data, extra=SMALL_LINEAR + options))
    assert len(list(build_test_loader(run, 'val'))) == 3
    assert next(iter(build_train_loader(run, SeededSamples(run.data['train'], 0))))
