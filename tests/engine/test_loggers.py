"""Loggers of other packages: one line where a package is missing."""
import importlib.util

import pytest
from helpers.data import prepare, write_config

from mmseg_custom.engine.loggers import PACKAGES, check_loggers
from mmseg_custom.errors import InputError


@pytest.fixture
def nothing_installed(monkeypatch):
    """Lets none of the packages be found."""
    find = importlib.util.find_spec
    missing = {module for module, _ in PACKAGES.values()}
    monkeypatch.setattr(importlib.util, 'find_spec',
                        lambda name, *rest: None if name in missing else find(name, *rest))


@pytest.mark.parametrize('place', ['log_config.hooks', 'custom_hooks'])
@pytest.mark.parametrize('kind', PACKAGES)
def test_a_package_that_is_missing_is_named(place, kind, nothing_installed):
    cfg = (dict(log_config=dict(interval=1, hooks=[dict(type='TextLoggerHook'), dict(type=kind)]))
           if place == 'log_config.hooks' else dict(custom_hooks=[dict(type=kind)]))
    with pytest.raises(InputError, match=f'{place}: {kind} needs .*{PACKAGES[kind][0]}.*: pip in'):
        check_loggers(cfg)


def test_before_anything_is_loaded(shared_data, tmp_path, nothing_installed):
    config = write_config(tmp_path / 'config.py', shared_data, extra="""
model = dict(pretrained='missing.pth')
log_config = dict(hooks=[dict(type='WandbLoggerHook')])
""")
    with pytest.raises(InputError, match='WandbLoggerHook needs the package wandb'):
        prepare(config, work_dir=str(tmp_path))
    prepare(config, ('test',), owns_work_dir=False, checkpoint='none')  # tests need none of them


def test_two_hooks_for_one_run_of_wandb_are_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: 'found')
    hooks = [dict(type='MMSegWandbHook'), dict(type='MlflowLoggerHook')]
    check_loggers(dict(log_config=dict(hooks=hooks)))
    with pytest.raises(InputError, match='custom_hooks: WandbLoggerHook is the second hook for '
                                         'W&B, after MMSegWandbHook'):
        check_loggers(dict(log_config=dict(hooks=hooks),
                           custom_hooks=[dict(type='WandbLoggerHook')]))
