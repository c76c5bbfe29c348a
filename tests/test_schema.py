import pytest

from mmseg_custom.errors import InputError
from mmseg_custom.schema import (
    array,
    integer,
    line,
    nullable,
    number,
    path_text,
    record,
    scalar,
    text,
    validate,
)

POINT = record(dict(x=number(0, 1), y=integer(0)), dict(name=line, at=nullable(path_text)),
               others=None)


@pytest.mark.parametrize('content, message', [
    (dict(x=0.5, y=3, name='a', at=None), None),
    (dict(x=1, y=3, at='a/\udcff.png'), None),
    (dict(x=True, y=3), 'x: True, expected a number from 0 to 1'),
    (dict(x=float('nan'), y=3), 'x: nan, expected a number from 0 to 1'),
    (dict(x=1, y=3.0), 'y: 3.0, expected a whole number of 0 or more'),
    (dict(x=1, y=10**40), 'expected a whole number of 0 or more'),
    (dict(x=1), 'y is missing'),
    (dict(x=1, y=1, z=2), "'z' is not known: expected at, name, x, y"),
    ({'x': 1, 'y': 1, 2: 3}, '2: 2, expected a text as the key'),
    (dict(x=1, y=1, name='a\nb'), r"name: 'a\nb', expected a text of one line"),
    (dict(x=1, y=1, name='\ud800'), 'expected a text of one line'),
    (dict(x=1, y=1, at='a\0'), 'expected a path'),
    (dict(x=1, y=1, at='x' * 1000), 'expected a path'),
    ([1], '[1], expected a mapping (x, y)')])
def test_first_value_that_does_not_fit_is_named(content, message):
    for check, whole in ((POINT, content), (record(dict(points=array(POINT, 'points', 1))),
                                            dict(points=[content]))):
        if message is None:
            validate(whole, check, 'a.json')
            continue
        with pytest.raises(InputError) as caught:
            validate(whole, check, 'a.json', 'write it again')
        found = str(caught.value)
        assert found.startswith('a.json: ') and found.endswith('; write it again')
        assert message.lstrip("'") in found and len(found) < 200 and '\n' not in found


def test_lengths_and_kinds():
    validate([1, 'a', None], array(scalar, 'three', 3, 3), 'a.json')
    for value, check, message in (
            ([1], array(scalar, 'two or more', 2), r'\[1\], expected two or more'),
            ('ab', array(text, 'a list'), "'ab', expected a list"),
            ([[]], array(scalar, 'values'), r'\[0\]: \[\], expected a text or a number')):
        with pytest.raises(InputError, match=f'^a.json: {message}'):
            validate(value, check, 'a.json')
