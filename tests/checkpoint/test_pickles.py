"""Pickles that would take more time or memory than their bytes are refused before they are read."""
import collections
import pickle

import numpy as np
import pytest
import torch

from mmseg_custom.checkpoint.pickles import check_pickle

NESTED_KEY = b'\x80\x02})q\x00' + b'h\x00h\x00\x86q\x00' * 40 + b'K\x01s.'  # its hash: 2^40 steps


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('value', [
    1, 'a', None, True, 1 << 70, -5, 1.5, 1j, b'xx', bytes(70000), 'ä' * 70000, 'bytearray of',
    [1, 2, [3]], {'a': {'b': (1, 2, 3, 4), 'c': {1, 2}, 'd': frozenset([1])}}, [[]] * 5,
    collections.OrderedDict(a=1), np.float64(3), np.arange(4), range(3), torch.Size([1]),
], ids=lambda value: type(value).__name__)
def test_what_python_writes_is_within_bounds(value, protocol):
    for data in (pickle.dumps(value, protocol), pickle._dumps(value, protocol)):
        assert check_pickle(data + b'behind it') == len(data)


@pytest.mark.parametrize('data, message', [
    (b'\x80\x02Nr\x00\x00\x00@.', 'object number 1073741824 in 9 bytes'),
    (b'p9999999999\n.', 'object number 9999999999'),
    (b'\x80\x04\x8d' + (2**40).to_bytes(8, 'little') + b'a.', '109951162778. bytes are asked for'),
    (b'\x80\x02\x8b\xff\xff\xff\x7fa.', 'bytes are asked for where 6 are left'),
    (b'\x80\x04\x95' + (2**40).to_bytes(8, 'little') + b'N.', 'a frame is longer than the file'),
    (NESTED_KEY, 'more than 100 parts'),
    (b'\x80\x02c__builtin__\nbytearray\n\x8a\x05\0\0\0\0\1\x85R.', 'it asks for bytearray'),
    (b'\x80\x04\x8c\x08builtins\x8c\tbytearray\x93\x8a\x05\0\0\0\0\1\x85R.', 'asks for bytearray'),
    (b'', 'cut short'), (b'\x80\x02N', 'cut short'), (b'R.', 'damaged'), (b'\xff.', 'no operation'),
    (b'cos\nsystem', 'not found|cut short'),
])
def test_bounds(data, message):
    with pytest.raises(ValueError, match=message):
        check_pickle(data)
