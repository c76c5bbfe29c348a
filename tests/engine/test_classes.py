from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.logs import logged
from mmcv import Config
from mmseg.datasets import CustomDataset
from mmseg.models.builder import HEADS

from mmseg_custom.checkpoint.checkpoint import Checkpoint
from mmseg_custom.engine.classes import (
    check_class_weights,
    check_heads,
    check_ignored,
    check_joined_classes,
    check_loaded_classes,
    check_scored_classes,
    check_single_channels,
    check_tested_head,
    check_trained_classes,
    may_mean_more,
)
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.errors import InputError


def config(*numbers, auxiliary=3) -> Config:
    heads = [dict(num_classes=number) for number in numbers]
    return Config(dict(model=dict(decode_head=heads if len(heads) > 1 else heads[0],
                                  auxiliary_head=dict(num_classes=auxiliary))))


def test_heads_have_the_classes_of_the_data():
    classes = ['sea', 'land', 'ice ']
    check_heads(config(3), classes)
    check_heads(config(3, 3), classes)
    with pytest.raises(InputError, match=r'decode_head.1.num_classes is 2, and the training data '
                       r'has 3 classes \(sea, land, ice\): set num_classes=3'):
        check_heads(config(3, 2), classes)
    with pytest.raises(InputError, match='auxiliary_head.num_classes is 1'):
        check_heads(config(3, auxiliary=1), classes)
    for cfg, more in ((config(150), True), (config(4), False)):
        with logged() as lines:
            check_heads(cfg, classes, more)
            check_heads(cfg, classes, more, warns=False)
        assert len(lines) == 1 and 'decode_head.num_classes is ' in lines[0]
    with pytest.raises(InputError, match='decode_head.num_classes is 21, .*: set num_classes=3'):
        check_heads(config(21), classes, may_mean_more=False)


def test_a_head_of_a_plugin_may_count_in_its_own_way():
    cfg = config(3, auxiliary=2)
    cfg.model.auxiliary_head.type = 'Foreign'
    with logged() as lines:
        check_heads(cfg, ['sea', 'land', 'ice'], may_mean_more=False)
    assert len(lines) == 1 and 'auxiliary_head.num_classes is 2' in lines[0]


@pytest.mark.parametrize('change, expected', [
    ({}, False), (dict(load_from='x.pth'), True), (dict(resume_from='x.pth'), True),
    ({'model.decode_head.init_cfg': dict(type='Pretrained', checkpoint='x.pth')}, True),
    ({'data.train.type': 'OfAPlugin'}, True)])
def test_more_classes_may_be_meant(change, expected):
    cfg = config(21)
    cfg.model.type, cfg.data = 'EncoderDecoder', dict(train=dict(type='ADE20KDataset'))
    cfg.merge_from_dict(change)
    assert may_mean_more(cfg, RunOptions()) == expected
    assert may_mean_more(cfg, RunOptions(auto_resume=True))


@pytest.mark.parametrize('head, fails', [
    (dict(num_classes=2), False), (dict(num_classes=3), True),
    (dict(num_classes=1, out_channels=1), False), (dict(num_classes=3, type='Foreign'), False),
    ([dict(num_classes=3), dict(num_classes=2)], False)])
def test_the_head_that_is_tested(head, fails):
    for one in head if isinstance(head, list) else [head]:
        one.setdefault('type', 'FCNHead')
    cfg = Config(dict(model=dict(type='EncoderDecoder', decode_head=head)))
    if fails:
        with pytest.raises(InputError, match='has 3 classes, its data set has 2'):
            check_tested_head(cfg, ['sea', 'land'])
    else:
        check_tested_head(cfg, ['sea', 'land'])


def test_a_single_channel_tells_two_classes_apart():
    cfg = config(1, auxiliary=2)
    with pytest.raises(InputError, match='decode_head.num_classes is 1'):
        check_heads(cfg, ['sea', 'land'])
    cfg.model.decode_head.loss_decode = dict(type='CrossEntropyLoss', use_sigmoid=True)
    check_heads(cfg, ['sea', 'land'])


def test_a_head_that_makes_labels_of_its_own_has_classes_of_its_own():
    cfg = config(3, auxiliary=2)
    cfg.model.auxiliary_head.type = 'STDCHead'
    check_heads(cfg, ['sea', 'land', 'ice'])


@pytest.mark.parametrize('loss, message', [
    (dict(type='CrossEntropyLoss', class_weight=[1., 1., 1.]), None),
    (dict(type='CrossEntropyLoss', class_weight=None), None),
    (dict(type='TverskyLoss', alpha=0.3), None),
    (dict(type='LossOfAPlugin', alpha=[.25, .75]), None),
    (dict(type='CrossEntropyLoss', class_weight=[1., 1.]),
     'model.decode_head.loss_decode.class_weight has 2 numbers: expected one for each of the 3 cl'),
    ([dict(type='DiceLoss'), dict(type='DiceLoss', class_weight=[1.] * 4)],
     'model.decode_head.loss_decode.1.class_weight has 4 numbers'),
    (dict(type='FocalLoss', alpha=[.5] * 2), 'loss_decode.alpha has 2 numbers'),
    (dict(type='LovaszLoss', class_weight='FOLDER/two.json'), 'has 2 numbers in .*two.json'),
    (dict(type='LovaszLoss', class_weight='FOLDER/three.npy'), None),
    (dict(type='LovaszLoss', class_weight='FOLDER/none.npy'),
     "none.npy' cannot be read: .*No such file")])
def test_there_are_as_many_weights_as_classes(tmp_path, loss, message):
    np.save(tmp_path / 'three.npy', np.ones(3))
    (tmp_path / 'two.json').write_text('[1, 2]')
    if isinstance(loss, dict) and isinstance(loss.get('class_weight'), str):
        loss['class_weight'] = loss['class_weight'].replace('FOLDER', str(tmp_path))
    cfg = config(3)
    cfg.model.decode_head.loss_decode = loss
    if message is None:
        check_class_weights(cfg)
    else:
        with pytest.raises(InputError, match=message):
            check_class_weights(cfg)


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


def test_classes_of_the_weights_of_a_start():
    checkpoint = Checkpoint('x.pth', dict(CLASSES=['wall', 'floor']), weights=None)
    same, turned, other, more = map(lambda names: SimpleNamespace(CLASSES=names), (
        ('Wall', 'floor'), ('floor', 'wall'), ('wall', 'sky'), ('wall', 'floor', 'sky')))
    assert check_loaded_classes(checkpoint, same) is None
    assert check_loaded_classes(checkpoint, more) is None  # whose shapes are refused
    assert check_loaded_classes(checkpoint, turned, ['decode_head.conv_seg']) is None
    for data, name in ((turned, 'wall'), (other, 'floor')):
        line = check_loaded_classes(checkpoint, data)
        assert f'{name!r} in x.pth: the heads start from weights of other classes' in line


def test_classes_of_a_resumed_run():
    checkpoint = Checkpoint('x.pth', dict(CLASSES=['wall', 'floor']), weights=None)
    check_trained_classes(checkpoint, SimpleNamespace(CLASSES=('wall', 'floor')), resumed=True)
    with pytest.raises(InputError, match="class 0 is 'wall' in the one and 'floor' in the other: "
                       'restore the classes of data.train to resume'):
        check_trained_classes(checkpoint, SimpleNamespace(CLASSES=('floor', 'wall')), resumed=True)


def data(*names) -> SimpleNamespace:
    return SimpleNamespace(CLASSES=names, img_infos=[], img_dir='images')


def custom(*names) -> CustomDataset:
    dataset = object.__new__(CustomDataset)
    dataset.CLASSES, dataset.img_infos = names, []
    return dataset


def test_classes_that_are_scored():
    assert check_scored_classes(data('sea', 'land'), data('sea ', 'land')) is None
    assert check_scored_classes(data('sea'), SimpleNamespace(CLASSES=None)) is None
    line = check_scored_classes(data('sea', 'land'), data('sea', 'soil'))
    assert line == "class 1 is 'land' in data.train, and 'soil' in data.val: both are scored as " \
        'one class'
    with pytest.raises(InputError, match='data.train has 2 classes, data.val 1'):
        check_scored_classes(data('sea', 'land'), custom('sea'))
    with pytest.raises(InputError, match="class 0 is 'sea' in data.train, and 'land' in data.val: "
                       'set classes in both in the same order, or give --no-validate'):
        check_scored_classes(data('sea', 'land'), custom('land', 'sea'))
    assert check_scored_classes(data('sea', 'land'), data('sea')) == (
        'data.train has 2 classes, data.val 1, which it scores in its own way')


def test_classes_that_are_trained_together():
    def joined(*parts):
        return SimpleNamespace(datasets=list(parts))
    assert check_joined_classes(data('sea', 'land')) == []
    assert check_joined_classes(joined(data('sea', 'land'), data('Sea', 'land '))) == []
    warning, = check_joined_classes(joined(data('sea', 'land'), data('sea', 'soil')))
    assert "class 1 is 'land' in" in warning and 'trained as one class' in warning
    with pytest.raises(InputError, match='set classes in both in the same order'):
        check_joined_classes(joined(data('sea', 'land'), data('land', 'sea')))
    with pytest.raises(InputError, match='of images has 2 classes, .* 1: set classes in both'):
        check_joined_classes(joined(data('sea', 'land'), data('sea')))


@HEADS.register_module()
class Foreign:
    """A head of a plugin."""


@pytest.mark.parametrize('head, fails', [
    (dict(num_classes=1), True), (dict(num_classes=2), False),
    (dict(num_classes=1, type='FCNHead'), True), (dict(num_classes=1, type='Foreign'), False),
    (dict(num_classes=1, loss_decode=[dict(type='CrossEntropyLoss'), dict(type='DiceLoss')]), True),
    (dict(num_classes=2, out_channels=1, loss_decode=dict(type='CrossEntropyLoss')), True),
    (dict(num_classes=2, out_channels=1,
          loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)), False),
    (dict(num_classes=1, loss_decode=dict(type='LovaszLoss', loss_type='binary')), False)])
def test_a_softmax_of_one_channel_learns_nothing(head, fails):
    cfg = Config(dict(model=dict(decode_head=head)))
    if fails:
        with pytest.raises(InputError, match='model.decode_head has a single channel'):
            check_single_channels(cfg)
    else:
        check_single_channels(cfg)


@pytest.mark.parametrize('of_data, of_head, warns', [
    (255, None, False), (100, 100, False), (3, None, True), (255, 0, True)])
def test_what_the_loss_and_the_metrics_ignore(of_data, of_head, warns):
    cfg = config(3)
    if of_head is not None:
        for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
            head.ignore_index = of_head
    scored = SimpleNamespace(datasets=[SimpleNamespace(img_infos=[], ignore_index=of_data)])
    warning = check_ignored(cfg, scored, 'val')
    assert bool(warning) == warns
    if warns:
        assert f'labels of {of_data} are left out of the metrics (data.val' in warning
