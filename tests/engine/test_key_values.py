"""Values of --cfg-options are read as mmcv reads them, but for the spaces of strings."""
import argparse
import random

import pytest
from mmcv import DictAction

from mmseg_custom.engine.key_values import convert, read_value
from mmseg_custom.errors import InputError

FORMS = ['1', '-1', '1e-4', 'true', 'None', 'nan', 'IoU', '1,2', '1,', ',', '', '[]', '()', '(1,)',
         '[23]', '[1,2,3]', '(1,2)', '[(1,2),[a,b],c]', "'quoted'", '"a,b"', "['x','y']", '[[1]]',
         '1,[2,3]', '[1,2],3', '(a)b', 'k=v', '.5', '0x10', '1_000', '/a/b.pth',
         "[('a',1),('b',2)]", '[,]', '[1,,2]', '((1,2),(3,))', 'a,(b,c),[d]', '[[1,2],[3,4]]']


@pytest.mark.parametrize('text', FORMS)
def test_without_spaces_a_value_is_mmcvs(text):
    expected = DictAction._parse_iterable(text)
    found = read_value(text)
    assert found == expected or found != found
    assert type(found) is type(expected)


def test_random_values_are_mmcvs():
    """With spaces, values are equal when all spaces are left out of their strings."""
    draw = random.Random(0)

    def without_spaces(value):
        if isinstance(value, (list, tuple)):
            return type(value)(map(without_spaces, value))
        return value.replace(' ', '') if isinstance(value, str) else value

    read = 0
    for _ in range(3000):
        text = ''.join(draw.choices('[](),,ab1. \'"', k=draw.randrange(12)))
        try:
            expected = DictAction._parse_iterable(text)
        except (AssertionError, RecursionError):
            continue
        assert without_spaces(read_value(text)) == expected, text
        read += len(text) > 3
    assert read > 300


@pytest.mark.parametrize('text, expected', [
    ('/data/my set', '/data/my set'), ('/data/a  b (old)/c', '/data/a  b (old)/c'),
    ("'/data/my set'", '/data/my set'), ('[/data/my set, /b]', ['/data/my set', '/b']),
    ("['traffic light', 'road']", ['traffic light', 'road']), ('1, 2', [1, 2]),
    ('( 1 , [2, c d] )', (1, [2, 'c d'])), (' None ', None), (' 3', 3)])
def test_strings_keep_their_spaces(text, expected):
    assert read_value(text) == expected


@pytest.mark.parametrize('text', ['[1,2', '[1,2],[3,4]', '(1,2]'])
def test_brackets_that_do_not_match_are_one_line(text):
    with pytest.raises(InputError, match='--cfg-options model.x=.*: the brackets do not match'):
        convert(argparse.Namespace(cfg_options={'model.x': text}))


def test_other_options_are_kept():
    args = convert(argparse.Namespace(config='a b', cfg_options={}, eval_options={'n': '1'}))
    assert vars(args) == dict(config='a b', cfg_options={}, eval_options={'n': 1})
