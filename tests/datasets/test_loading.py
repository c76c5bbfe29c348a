import random

import cv2
import numpy as np
import pytest
import torch
from helpers.data import write_config
from mmseg.datasets import build_dataset
from PIL import Image

from mmseg_custom.datasets.loading import FASTER, accelerate
from mmseg_custom.engine.config import load_config


def sample(dataset, index: int, seed: int) -> tuple[dict, float]:
    """A sample, and the number that numpy would draw next."""
    random.seed(seed)
    np.random.seed(seed)
    return dataset[index], np.random.random_sample()


@pytest.fixture
def train(shared_data, tmp_path) -> dict:
    return load_config(str(write_config(tmp_path / 'config.py', shared_data))).data.train


def test_faster_steps_return_the_same_bits_and_draw_the_same_numbers(train):
    plain, faster = build_dataset(train), accelerate(build_dataset(train))
    replaced = [step for step in faster.pipeline.transforms if type(step) in FASTER.values()]
    assert len(replaced) == len(FASTER)
    for seed in range(40):
        (a, next_a), (b, next_b) = (sample(d, seed % 6, seed) for d in (plain, faster))
        assert torch.equal(a['img'].data, b['img'].data), seed
        assert torch.equal(a['gt_semantic_seg'].data, b['gt_semantic_seg'].data), seed
        assert a['img_metas'].data.keys() == b['img_metas'].data.keys() and next_a == next_b


def test_palette_labels_stay_numbers(train, own_data):
    path = own_data / 'annotations/training/ADE_train_00000001.png'
    labels = Image.open(path).convert('P')
    labels.putpalette(list(range(256)) * 3)
    labels.save(path)
    train.data_root = str(own_data)
    plain, faster = build_dataset(train), accelerate(build_dataset(train))
    for seed in range(3):
        assert torch.equal(*(sample(d, 0, seed)[0]['gt_semantic_seg'].data
                             for d in (plain, faster)))


def test_steps_that_users_derive_are_left_alone(train):
    dataset = build_dataset(train)
    kinds = [type(step) for step in dataset.pipeline.transforms]
    own = type('Own', (kinds[-3],), {})
    dataset.pipeline.transforms[-3].__class__ = own
    accelerate(dataset)
    assert type(dataset.pipeline.transforms[-3]) is own


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
