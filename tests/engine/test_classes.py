from functools import partial

import pytest
from helpers.logs import logged
from mmcv import Config

from mmseg_custom.checkpoint.checkpoint import Checkpoint
from mmseg_custom.engine.classes import check_heads, check_trained_classes
from mmseg_custom.errors import InputError


def config(*numbers, auxiliary=3) -> Config:
    heads = [dict(num_classes=number) for number in numbers]
    return Config(dict(model=dict(decode_head=heads if len(heads) > 1 else heads[0],
                                  auxiliary_head=dict(num_classes=auxiliary))))


def test_heads_have_the_classes_of_the_data():
    classes = ['sea', 'land', 'ice ']
    check_heads(config(3), classes)
    check_heads(config(3, 3), classes)
    with pytest.raises(InputError, match=r'decode_head.num_classes is 2, and the training data has '
                       r'3 classes \(sea, land, ice ...\): set it to 3'):
        check_heads(config(3, 2), classes)
    with pytest.raises(InputError, match='auxiliary_head.num_classes is 1'):
        check_heads(config(3, auxiliary=1), classes)
    with logged() as lines:
        check_heads(config(150), classes)
    assert len(lines) == 1 and 'decode_head.num_classes is 150' in lines[0]


@pytest.mark.parametrize('classes, message', [
    (['wall'] * 21, r'x.pth has 21 classes, the data set Namespace has 2'),
    (['wall', 'sky'], "class 1 is 'sky' in the one and 'floor' in the other"),
    (['Wall ', 'floor'], None), (None, None),
])
def test_classes_of_the_checkpoint(classes, message):
    class Namespace:
        CLASSES = ('wall', 'floor')

    checkpoint = Checkpoint('x.pth', dict(CLASSES=classes), weights=None)
    check = partial(check_trained_classes, checkpoint, Namespace())
    if message is None:
        check()
        return
    with pytest.raises(InputError, match=message):
        check()
