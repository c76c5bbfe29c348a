import pytest

from mmseg_custom.checkpoint.adapter_record import (
    as_option,
    check_record,
    compare_adapters,
    recorded_adapters,
)
from mmseg_custom.errors import InputError

RECORD = dict(type='lora', r=16, alpha=32, targets=['qkv', 'fc1'], blocks=[0, 1, 2, 3, 4],
              use_dora=False)
NAME = 'backbone.blocks.0.attn.qkv.lora_A.default.weight'


def test_equal_records():
    same = {**RECORD, 'targets': ['mlp.fc1', 'attn.qkv']}
    assert compare_adapters(RECORD, same, 'x.pth') is False
    assert compare_adapters(None, None, 'x.pth') is False
    assert compare_adapters(None, RECORD, 'x.pth') is True


@pytest.mark.parametrize('name, value, says', [
    ('r', 8, 'with r=16, the model has r=8'),
    ('alpha', 16.0, 'with alpha=32, the model has alpha=16'),
    ('targets', ['qkv'], "with targets=['qkv', 'fc1'], the model has targets=['qkv']"),
    ('blocks', [2, 3], 'with blocks=list(range(5)), the model has blocks=[2, 3]'),
    ('use_dora', True, 'with use_dora=False, the model has use_dora=True')])
def test_what_differs_is_named(name, value, says):
    with pytest.raises(InputError) as error:
        compare_adapters(RECORD, {**RECORD, name: value}, 'x.pth')
    assert f'x.pth holds adapters {says}: set model.backbone.adapt=' in str(error.value)


def test_a_model_without_adapters():
    with pytest.raises(InputError, match='x.pth holds adapters, the config has none: set .*or '
                       'merge them .*tools/merge_checkpoint.py x.pth merged.pth'):
        compare_adapters(RECORD, None, 'x.pth')


def test_option_of_a_config():
    assert as_option({**RECORD, 'blocks': [4, 5, 6, 7], 'use_dora': True}) == (
        "dict(type='lora', r=16, alpha=32, targets=['qkv', 'fc1'], blocks=list(range(4, 8)), "
        'use_dora=True)')


def test_adapters_without_their_alpha():
    assert recorded_adapters({}, ['decode_head.conv_seg.weight'], 'x.pth') is None
    with pytest.raises(InputError, match='x.pth holds adapters .*lora_A.* without meta.adapt'):
        recorded_adapters({}, [NAME], 'x.pth')


@pytest.mark.parametrize('name, value', [
    ('r', 0), ('r', '16'), ('alpha', float('inf')), ('targets', []), ('targets', 'qkv'),
    ('blocks', [-1]), ('blocks', ['all']), ('use_dora', None), ('type', 'adalora')])
def test_a_damaged_record(name, value):
    check_record(RECORD, 'x.pth')
    with pytest.raises(InputError, match=rf'x.pth: meta.adapt: {name}'):
        check_record({**RECORD, name: value}, 'x.pth')


def test_what_others_store_there_is_left_alone():
    check_record('prompt', 'x.pth')
    check_record(dict(kind='bias'), 'x.pth')
