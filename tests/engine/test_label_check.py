"""Labels of samples, before the loss meets them."""
import numpy as np
import pytest
import torch
from helpers.data import SMALL_LINEAR, prepare, write_config
from mmcv.parallel import DataContainer
from mmseg.datasets import CustomDataset
from mmseg.datasets.builder import DATASETS
from mmseg.models.builder import HEADS, LOSSES
from mmseg.models.decode_heads import FCNHead as MMSegFCNHead
from PIL import Image
from torch import nn

from mmseg_custom.doctor.data import check_data
from mmseg_custom.engine.config import load_config
from mmseg_custom.engine.label_check import CheckedSamples, LabelRule, with_checked_labels
from mmseg_custom.engine.sweep import sweep
from mmseg_custom.engine.train import train
from mmseg_custom.errors import InputError


@DATASETS.register_module()
class UncheckedDataset(CustomDataset):
    """A data set of somebody else, of two classes."""
    CLASSES = ('a', 'b')
    PALETTE = [[0, 0, 9], [0, 9, 0]]


@HEADS.register_module()
class HeadOfItsOwn(MMSegFCNHead):
    """A head that may understand other labels."""

    def losses(self, seg_logit, seg_label):
        return super().losses(seg_logit, seg_label % self.num_classes)


@LOSSES.register_module()
class LossOfItsOwn(nn.Module):
    """A loss that may understand other labels."""

    def forward(self, logits, labels, **_):
        return logits.sum() * 0


def head(kind='FCNHead', classes=5, **options):
    return dict(type=kind, num_classes=classes, **options)


def model(*heads, **options):
    return dict(type='EncoderDecoder', decode_head=heads[0], auxiliary_head=list(heads[1:]),
                **options)


@pytest.mark.parametrize('config, expected', [
    (model(head()), (5, {255})),
    (model(head('PSPHead'), head(classes=4, ignore_index=9)), (4, set())),
    (model(head(ignore_index=0)), (5, {0})),
    (model(head(classes=1, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))),
     (2, {255})),
    (model(head('STDCHead', 2), head()), (5, {255})),  # its 2 classes are borders and others
    (model(head('DAHead'), head('PointHead', 6)), (5, {255})),
    (model(head('HeadOfItsOwn')), None),
    (model(head(loss_decode=[dict(type='DiceLoss'), dict(type='LossOfItsOwn')])), None),
    (model(head(ignore_index=None)), None)])
def test_rule_of_the_heads(config, expected):
    found = LabelRule.of(config)
    assert (found and (found.classes, found.ignored)) == (expected and (
        expected[0], frozenset(expected[1])))


@pytest.mark.parametrize('labels, ignored, message', [
    ([0, 4, 255], {255}, None),
    ([0, 5], {255}, r'x.jpg: after its pipeline, its labels hold 5 \(1 pixels\): the heads take '
     r'0..4, and 255 \(ignore_index\)'),
    ([0, 4, 255, 255], {0}, r'hold 255 \(2 pixels\).*and 0 \(ignore_index\).*seg_pad_val'),
    ([-1], {255}, 'hold -1'),
    ([255], set(), r'the heads take 0..4; correct')])
def test_labels_of_a_sample(labels, ignored, message):
    sample = dict(gt_semantic_seg=DataContainer(torch.tensor(labels)),
                  img_metas=DataContainer(dict(filename='x.jpg')))
    samples = CheckedSamples([sample], LabelRule(5, frozenset(ignored)))
    if message is None:
        assert samples[0] is sample
    else:
        with pytest.raises(InputError, match=message):
            samples[0]


def test_other_samples_are_not_touched():
    assert with_checked_labels([1], model(head('HeadOfItsOwn'))) == [1]
    sample = dict(img=1)
    assert with_checked_labels([sample], model(head()))[0] is sample


UNCHECKED = SMALL_LINEAR + """
for part in ('train', 'val', 'test'):
    data[part].update(type='UncheckedDataset', classes=None)
train_pipeline[1]['reduce_zero_label'] = False
model['decode_head']['num_classes'] = 2
"""
CASES = {
    'beyond the classes': (UNCHECKED, r'its labels hold [23](, 3)? \(\d+ pixels\): the heads take'),
    'of padding': (SMALL_LINEAR + "model['decode_head']['ignore_index'] = 0",
                   r'its labels hold 255 \(\d+ pixels\): the heads take 0..149, and 0'),
}


@pytest.mark.parametrize('case', CASES)
def test_training_stops_at_the_first_sample(tmp_path, own_data, case):
    extra, message = CASES[case]
    config = write_config(tmp_path / 'config.py', own_data, extra=extra)
    with pytest.raises(InputError, match=message):
        train(prepare(config, splits=['train'], seed=0, work_dir=str(tmp_path / 'work')))


def test_a_run_on_binary_masks_is_refused_before_it_starts(tmp_path, own_data):
    """And by the doctor, which says the same."""
    for path in (own_data / 'annotations/training').iterdir():
        labels = np.array(Image.open(path))
        Image.fromarray(np.where(labels > 1, 255, 0).astype(np.uint8)).save(path)
    config = write_config(tmp_path / 'config.py', own_data, extra=UNCHECKED)
    with pytest.raises(InputError, match='show no class but the first.*in a binary mask of 0 and'):
        prepare(config, splits=['train'])
    assert any(finding.level == 'fault' and 'binary mask of 0 and 255' in finding.message
               for finding in check_data(load_config(str(config)))[0])
    config = write_config(tmp_path / 'config.py', own_data, extra=SMALL_LINEAR)
    with pytest.raises(InputError, match='no pixel of a class'):
        prepare(config, splits=['train'])


def test_a_sweep_stops_at_the_first_sample(tmp_path, own_data):
    extra = CASES['of padding'][0] + '\nsweep = dict(lr=[1e-3])'
    (tmp_path / 'work').mkdir()
    config = write_config(tmp_path / 'config.py', own_data, extra=extra)
    with pytest.raises(InputError, match='its labels hold 255'):
        sweep(prepare(config, splits=['train'], seed=0, work_dir=str(tmp_path / 'work')))
