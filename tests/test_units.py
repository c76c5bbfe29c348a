import pytest

from mmseg_custom.units import GIB, MIB, format_bytes


@pytest.mark.parametrize(('count', 'decimal', 'text'), [
    (0, False, '0 B'), (512, False, '512 B'), (999, True, '999 B'), (1000, True, '1 kB'),
    (8_550_000, True, '8.55 MB'), (1.38e12, True, '1.38 TB'), (1.5 * GIB, False, '1.5 GiB'),
    (80 * MIB, False, '80 MiB'), (1023.9 * MIB, False, '1 GiB'), (4e16, True, '4e+04 TB')])
def test_bytes_have_three_digits_and_a_unit(count, decimal, text):
    assert format_bytes(count, decimal) == text
