"""What is inserted into a page reads as text, whatever it holds."""
import pytest

from mmseg_custom.engine.run_folder.page import block, code, duration, is_ours, text


@pytest.mark.parametrize('value, expected', [
    ('a|b', r'a\|b'), ('<b> & [x]', r'\<b\> &amp; \[x\]'), ('iter_4.pth', 'iter_4.pth'),
    ('_a_ *b*', r'\_a\_ \*b\*'), ('two\nlines', 'two lines'), ('$x$ `y`', r'\$x\$ \`y\`')])
def test_text(value, expected):
    assert text(value) == expected


def test_code_and_blocks_hold_ticks():
    assert code('a`b|c') == r'``a`b\|c``' and code('`a') == '`` `a ``' and code('') == ''
    assert block(['echo ```']).splitlines()[0] == '````sh'


@pytest.mark.parametrize('seconds, expected', [(4.4, '4 s'), (119.6, '2 min 0 s'),
                                               (3 * 3600 + 61, '3 h 1 min'), (90000, '1 d 1 h')])
def test_duration(seconds, expected):
    assert duration(seconds) == expected


def test_pages_that_may_be_overwritten(tmp_path):
    assert is_ours(str(tmp_path / 'README.md'))
    for content, ours in (('', False), ('# x', False), ('<!-- written by InternViT-Seg, a', True)):
        (tmp_path / 'README.md').write_text(content)
        assert is_ours(str(tmp_path / 'README.md')) is ours
