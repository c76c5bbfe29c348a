import pytest

from mmseg_custom.errors import InputError
from mmseg_custom.layers.block import Block
from mmseg_custom.layers.lora import LoraOptions
from mmseg_custom.models import tuning
from mmseg_custom.models.tuning import Tuning, check_adapters, tuning_of

LORA = dict(type='lora')


def test_kinds_of_the_options_of_a_config():
    assert tuning_of({}) == 'full'
    assert tuning_of(dict(freeze_vit=True)) == 'frozen'
    assert tuning_of(dict(train_last=2)) == 'last_blocks'
    assert tuning_of(dict(freeze_vit=True, adapt=LORA)) == 'lora'
    assert tuning_of(dict(adapt=None, train_last=None, freeze_vit=False)) == 'full'


@pytest.mark.parametrize('options, blocks, first', [
    ({}, range(8), 0),
    (dict(freeze_vit=True), (), 8),
    (dict(train_last=3), range(5, 8), 5),
    (dict(train_last=3, train_norms=True), range(5, 8), 0),
    (dict(train_last=0, train_norms=True), (), 0),
    (dict(adapt=LORA), range(8), 0),
    (dict(adapt=dict(LORA, blocks=(6, 3))), (3, 6), 3),
])
def test_first_trained_block(options, blocks, first):
    found = Tuning.of(8, **options)
    assert list(found.blocks) == list(blocks) and found.first_trained == first


def test_norms_of_other_blocks_are_trained_by_choice():
    found = Tuning.of(8, train_last=1, train_norms=True)
    assert found.trains(0, 'norm1.weight') and found.trains(3, 'attn.q_norm.weight')
    assert found.trains(3, 'ls2.gamma') and not found.trains(3, 'attn.qkv.weight')
    assert found.trains(7, 'attn.qkv.weight')
    assert not Tuning.of(8, train_last=1).trains(0, 'norm1.weight')


def test_record_has_plain_values():
    found = Tuning.of(3, adapt=dict(LORA, r=4, targets=['fc1']))
    assert found.record == dict(type='lora', r=4, alpha=32, targets=['fc1'], blocks=[0, 1, 2],
                                use_dora=False)
    assert Tuning.of(3).record is None


@pytest.mark.parametrize('options, message', [
    (dict(train_last=2, freeze_vit=True), 'train_last=2 with freeze_vit=True.*freeze_vit=False'),
    (dict(train_last=2, adapt=LORA), 'adapt and .*train_last=2.*leave one of them out'),
    (dict(train_norms=True, adapt=LORA), 'train_norms=True with .*adapt.*leave one of'),
    (dict(train_norms=True), 'train_norms=True without train_last.*0 for norms alone'),
    (dict(train_last=0), 'train_last=0.*from 1 to 8'),
    (dict(train_last=9), 'train_last=9.*from 1 to 8, which are read'),
    (dict(train_last=True), 'train_last=True'),
    (dict(adapt='lora'), r"adapt='lora': expected dict\(type='lora'"),
    (dict(adapt=dict(r=4)), "adapt.type=None: expected 'lora'"),
    (dict(adapt=dict(LORA, rank=4)), "unknown key in model.backbone.adapt: 'rank'"),
    (dict(adapt=dict(LORA, r=0)), 'adapt.r=0: expected a whole number of 1'),
    (dict(adapt=dict(LORA, r=1.5)), 'adapt.r=1.5'),
    (dict(adapt=dict(LORA, alpha=0)), 'adapt.alpha=0: expected a number above 0'),
    (dict(adapt=dict(LORA, dropout=1)), 'adapt.dropout=1: expected a probability'),
    (dict(adapt=dict(LORA, use_dora=1)), 'adapt.use_dora=1: expected True or False'),
    (dict(adapt=dict(LORA, targets='qkv')), r"adapt.targets='qkv': expected a list"),
    (dict(adapt=dict(LORA, targets=[])), 'adapt.targets=.*expected a list'),
    (dict(adapt=dict(LORA, blocks=[8])), r'adapt.blocks=\[8\].*between 0 and 7'),
    (dict(adapt=dict(LORA, blocks=[1, 1])), r'adapt.blocks=\[1, 1\].*each once'),
    (dict(adapt=dict(LORA, alpha=float('inf'))), 'adapt.alpha=inf: expected a number above 0'),
    (dict(adapt=dict(LORA, blocks='last')), "adapt.blocks='last': expected 'all'"),
])
def test_contradictions_are_refused_in_a_line(options, message):
    with pytest.raises(InputError, match=message):
        Tuning.of(8, **options)


def test_adapters_must_go_with_the_block(monkeypatch):
    block = Block(32, 2)
    check_adapters(block, LoraOptions(r=32), 'int8')
    with pytest.raises(InputError, match="called 'qkw' .did you mean 'qkv'.*fc1, fc2, proj, qkv"):
        check_adapters(block, LoraOptions(targets=('fc1', 'qkw')), None)
    with pytest.raises(InputError, match='adapt.r=33: expected 1 to 32, the shorter side'):
        check_adapters(block, LoraOptions(r=33), None)
    with pytest.raises(InputError, match="use_dora=True with frozen_dtype='int8'"):
        check_adapters(block, LoraOptions(use_dora=True), 'int8')
    monkeypatch.setattr(tuning, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match='peft, which is not installed: pip install peft'):
        check_adapters(block, LoraOptions(), None)
