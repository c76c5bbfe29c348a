"""Packages whose parts are imported when they are used."""
import sys

import pytest

from mmseg_custom.late_imports import StandIn, import_alone, standing_in


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose __init__.py takes a name from its module, and one that fails."""
    for name, text in (('late_one', 'from .part import value\nmore = value + 1\n'),
                       ('late_two', 'raise OSError("broken")')):
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').write_text(text)
        (tmp_path / name / 'part.py').write_text('value = 1\n')
    inner = tmp_path / 'late_one' / 'inner'
    inner.mkdir()
    (inner / '__init__.py').write_text('import late_one.part\nfrom .part import value\n')
    (inner / 'part.py').write_text('value = 3\n')
    (inner / 'other.py').write_text('import late_one\nvalue = late_one.more + 1\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.startswith('late_')]:
        del sys.modules[name]


def test_a_late_package_runs_at_the_first_unknown_name(package):
    import_alone(['late_one'], ['late_one.part'])
    import late_one
    import late_one.part
    from late_one.part import value
    assert value == late_one.part.value == 1 and 'more' not in vars(late_one)
    assert not hasattr(late_one, 'nothing') and late_one.more == 2
    from late_one import more
    assert more == 2 and sys.modules['late_one'] is late_one and late_one.__file__


def test_a_late_package_runs_before_its_other_modules(package):
    import_alone(['late_one', 'late_one.inner'], ['late_one.inner.part'])
    import late_one
    import late_one.inner.other
    assert late_one.more == 2 and late_one.inner.other.value == 3
    assert late_one.inner.part.value == late_one.inner.value == 3


def test_a_late_package_that_fails_does_so_each_time(package):
    import_alone(['late_two'], ['late_two.part'])
    import_alone(['not_installed_at_all'], ['not_installed_at_all.part'])
    for _ in range(2):
        with pytest.raises(OSError, match='broken'):
            sys.modules['late_two'].name  # noqa: B018
    assert 'not_installed_at_all' not in sys.modules


def test_a_stand_in_is_gone_once_it_is_used_or_left(package):
    with standing_in('late_one', 'late_one.part', 'json'):
        import json

        import late_one.part as held
        assert isinstance(held, StandIn) and not isinstance(json, StandIn)
        assert not hasattr(held, '__file__') and 'late_one' in sys.modules
    assert 'late_one' not in sys.modules and held.value == 1
    with standing_in('late_two'):
        pass
    import late_one.part
    assert held.value == late_one.part.value and not isinstance(late_one, StandIn)
