"""mmseg's init_segmentor and inference_segmentor, on what people have."""
import numpy as np
import pytest
import torch
from helpers.data import SMALL_LINEAR, write_config
from mmseg.apis import inference_segmentor, init_segmentor

from mmseg_custom.engine.config import load_config
from mmseg_custom.engine.inference import Predictor
from mmseg_custom.errors import InputError

GREY = np.random.default_rng(0).integers(0, 256, (60, 70)).astype(np.uint8)
COLOUR = np.stack([GREY] * 3, -1)


@pytest.fixture(scope='module')
def config(shared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('inference')
    return write_config(folder / 'config.py', shared_data, extra=SMALL_LINEAR)


@pytest.fixture(scope='module')
def segmentor(config):
    torch.manual_seed(0)
    return init_segmentor(str(config), None, 'cpu')


@pytest.mark.parametrize('content', [
    lambda state: state, lambda state: dict(state_dict=state),
    lambda state: dict(state_dict=state, meta=None), lambda state: dict(state_dict=state, meta={})])
def test_checkpoint_without_names_of_classes(config, segmentor, tmp_path, content):
    torch.save(content(segmentor.state_dict()), tmp_path / 'a.pth')
    found = init_segmentor(str(config), str(tmp_path / 'a.pth'), 'cpu')
    assert found.CLASSES[:2] == ['class 0', 'class 1'] and len(found.CLASSES) == 150
    labels = inference_segmentor(found, COLOUR)
    assert (labels[0] == inference_segmentor(segmentor, COLOUR)[0]).all()
    found.show_result(COLOUR, labels, out_file=str(tmp_path / 'a.png'))
    assert (tmp_path / 'a.png').exists()


def test_names_of_classes_are_those_of_the_checkpoint(config, segmentor, tmp_path):
    meta = dict(CLASSES=['a'] * 150, PALETTE=[[1, 2, 3]] * 150)
    torch.save(dict(state_dict=segmentor.state_dict(), meta=meta), tmp_path / 'a.pth')
    found = init_segmentor(str(config), str(tmp_path / 'a.pth'), 'cpu')
    assert found.CLASSES == meta['CLASSES'] and found.PALETTE == meta['PALETTE']


@pytest.mark.parametrize('change, message', [
    (lambda state: {name: value[:3] if 'conv_seg' in name else value
                    for name, value in state.items()},
     r'decode_head.conv_seg.weight is of the shape \(3, 32, 1, 1\), expected \(150,'),
    (lambda state: {name.removeprefix('backbone.'): value for name, value in state.items()},
     'backbone.pos_embed is missing, expected')])
def test_checkpoint_that_leaves_weights_at_random(config, segmentor, tmp_path, change, message):
    torch.save(dict(state_dict=change(segmentor.state_dict())), tmp_path / 'a.pth')
    with pytest.raises(InputError, match=f'a.pth is not of this config: {message}'):
        init_segmentor(str(config), str(tmp_path / 'a.pth'), 'cpu')


@pytest.mark.parametrize('image', [
    GREY, GREY[..., None], np.dstack([COLOUR, GREY]), COLOUR.astype(np.int64),
    COLOUR.astype(np.uint16) * 257, [GREY, COLOUR]])
def test_arrays_that_are_images(segmentor, image):
    expected, = inference_segmentor(segmentor, COLOUR)
    for labels in inference_segmentor(segmentor, image):
        assert labels.shape == (60, 70) and (labels == expected).all()


@pytest.mark.parametrize('image, message', [
    (GREY > 3, 'image of bool: expected uint8'), (GREY.astype(int) - 9, 'int64 from -9 to'),
    (np.full((9, 9), np.nan), 'finite numbers'), (COLOUR[..., :2], r'shape \(60, 70, 2\)'),
    (COLOUR[None], 'expected .height, width., grey'), (COLOUR[:0], r'shape \(0, 70, 3\)'),
    (__file__, 'test_inference.py cannot be decoded')])
def test_what_is_no_image(segmentor, image, message):
    with pytest.raises(InputError, match=message):
        inference_segmentor(segmentor, image)


def test_predictor_takes_grey_as_it_is(config):
    predictor = Predictor(load_config(str(config)), 'none', 'cpu')
    assert (predictor(GREY) == predictor(COLOUR)).all()  # and does not mirror it
