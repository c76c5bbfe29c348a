"""The tests of `make test-faults`: wrong inputs, kills, and faults of the machine."""
import pytest
from helpers.faults import FIGURES, Machine


def pytest_terminal_summary(terminalreporter):
    """Prints the line of figures."""
    if FIGURES.inputs or FIGURES.labels or FIGURES.kills or FIGURES.machines:
        terminalreporter.write_line(FIGURES.line())


@pytest.fixture(scope='session')
def machine(tmp_path_factory):
    """Runs cases."""
    runs = Machine(tmp_path_factory.mktemp('cases'))
    yield runs
    runs.close()


@pytest.fixture
def assert_right(machine, request):
    """Runs cases, and fails with a list of those that did not end as they must."""
    def assert_right(cases):
        wrong = machine.run(cases, request.config.getoption('--only'))
        assert not wrong, f'{len(wrong)} cases went wrong:\n' + '\n'.join(sorted(wrong))
    return assert_right
