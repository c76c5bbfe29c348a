import pytest
from torch import nn

from mmseg_custom.checkpoint.load import Mismatch
from mmseg_custom.checkpoint.recorded import NetworkName, compared_with

CONFIG = """model = dict(
    type='EncoderDecoder',
    backbone=dict(
        type='ResNetV1c', depth=50),
    decode_head=[
        dict(type='PSPHead', num_classes=19)])
"""


class FCNHead(nn.Module):
    """Stands for the head of a segmentor."""


@pytest.mark.parametrize('meta, expected', [
    (dict(config=CONFIG, CLASSES=['a'] * 19), 'ResNetV1c with PSPHead of 19 classes'),
    (dict(config="model = dict(decode_head=dict(type='UPerHead'))"), 'UPerHead'),
    ({}, 'a network'), (dict(config=3, CLASSES=3), 'a network')])
def test_names_of_networks(meta, expected):
    assert str(NetworkName.recorded_in(meta)) == expected


def test_a_mismatch_says_what_the_checkpoint_is_of():
    model = nn.Module()
    model.decode_head, model.num_classes = FCNHead(), 150
    with pytest.raises(Mismatch, match='does not fit. By its metadata it is of ResNetV1c with '
                       'PSPHead of 19 classes; the config builds FCNHead of 150 classes') as raised:
        with compared_with(dict(config=CONFIG, CLASSES=['a'] * 19), model):
            raise Mismatch('does not fit', ['decode_head.conv_seg'])
    assert raised.value.parts == ['decode_head.conv_seg']
    with pytest.raises(Mismatch, match='fit$'), compared_with({}, model):
        raise Mismatch('does not fit', ['decode_head'])
