"""How a run of W&B begins, goes on, and is refused."""
import sys
from types import SimpleNamespace

import pytest
from helpers.tracked import a_runner

from mmseg_custom.engine.tracking import WandbTracker
from mmseg_custom.engine.tracking.description import Description
from mmseg_custom.engine.tracking.record import read_run
from mmseg_custom.errors import InputError


class UsageError(Exception):
    """Stands for W&B's."""

    __module__ = 'wandb.errors'


@pytest.fixture
def begun(monkeypatch):
    """Returns the arguments of each ``wandb.init``, by a stand-in for W&B."""
    found = []

    def init(**options):
        found.append(options)
        if options.get('project') == 'refused':
            raise UsageError('No API key configured.\nSee the manual.')
        nothing = SimpleNamespace(update=lambda *_, **__: None)
        return SimpleNamespace(id=options['id'], offline=False, url='', config=nothing,
                               define_metric=lambda *_, **__: None)

    settings = type('Settings', (dict,), dict(model_fields={}))
    monkeypatch.setitem(sys.modules, 'wandb', SimpleNamespace(init=init, Settings=settings))
    monkeypatch.delenv('WANDB_DIR', raising=False)
    return found


def test_a_resumed_run_goes_on_and_a_new_one_begins(tmp_path, begun):
    for iteration in (0, 4, 0):
        WandbTracker().open(a_runner(tmp_path, iteration), Description('run'))
        assert read_run(str(tmp_path), 'wandb') == begun[-1]['id']
    first, second, third = [options['id'] for options in begun]
    assert first == second != third
    assert {options['resume'] for options in begun} == {'allow'}
    assert begun[0]['dir'] == str(tmp_path) and 'group' not in begun[0]


def test_a_sweep_is_a_group_and_own_arguments_go_before(tmp_path, begun):
    WandbTracker(init_kwargs=dict(id='mine', dir='here')).open(
        a_runner(tmp_path, 0), Description('lr0.01', sweep='sweep'))
    options, = begun
    assert [options[name] for name in ('id', 'dir', 'name', 'group', 'job_type')] == [
        'mine', 'here', 'lr0.01', 'sweep', 'sweep']


def test_no_login_is_one_line(tmp_path, begun):
    with pytest.raises(InputError, match=r'W&B: No API key configured\.; run `wandb login`, or'):
        WandbTracker(init_kwargs=dict(project='refused')).open(
            a_runner(tmp_path, 0), Description('run'))
