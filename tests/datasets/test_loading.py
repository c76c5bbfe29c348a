import cv2
import numpy as np
import pytest
from helpers.data import write_config
from mmseg.datasets import build_dataset

from mmseg_custom.engine.config import load_config


@pytest.fixture
def train(shared_data, tmp_path) -> dict:
    return load_config(str(write_config(tmp_path / 'config.py', shared_data))).data.train


@pytest.mark.parametrize('scale, reduced', [(1.0, False), (0.2, True)])
def test_reduced_decoding_keeps_sizes_and_nearly_the_picture(train, own_data, scale, reduced):
    y, x = np.mgrid[:400, :600]
    picture = np.stack([y % 256, x % 256, (x + y) // 4 % 256], -1).astype(np.uint8)
    cv2.imwrite(str(own_data / 'images/training/ADE_train_00000001.jpg'),
                cv2.GaussianBlur(picture, (0, 0), 9))
    cv2.imwrite(str(own_data / 'annotations/training/ADE_train_00000001.png'),
                np.ones((400, 600), np.uint8))
    train.data_root = str(own_data)
    load, labels = train.pipeline[:2]
    size = (int(600 * scale), int(400 * scale))
    resize = dict(type='Resize', img_scale=size)
    plain = build_dataset({**train, 'pipeline': [load, labels, resize]})[0]
    ours = build_dataset({**train, 'pipeline': [
        dict(type='LoadImageReduced', img_scale=size), labels, dict(type='ResizeLabels')]})[0]
    assert np.array_equal(plain['gt_semantic_seg'], ours['gt_semantic_seg'])
    difference = np.abs(plain['img'].astype(int) - ours['img']).mean()
    assert 0 < difference < 3 if reduced else difference == 0
    for key in ('img_shape', 'ori_shape', 'pad_shape', 'filename', 'scale'):
        assert plain[key] == ours[key], key
    assert np.allclose(plain['scale_factor'], ours['scale_factor'])
