"""Preprocessing of exported segmentors, against the test pipelines of mmseg that it stands for."""
import numpy as np
import pytest
from mmseg.datasets.pipelines import Compose
from PIL import Image

from mmseg_custom.deploy.preprocessing import Preprocessing
from mmseg_custom.engine.export.test_pipeline import preprocessing_of
from mmseg_custom.errors import InputError

NORMALIZE = dict(type='Normalize', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
SETR = dict(type='SETR_Resize', keep_ratio=True, crop_size=(56, 56), setr_multi_scale=True)


def pipeline(*steps: dict, **options) -> list[dict]:
    return [dict(type='LoadImageFromFile'),
            dict(type='MultiScaleFlipAug', **{'img_scale': (224, 56), 'flip': False, **options},
                 transforms=[*steps, dict(type='ImageToTensor', keys=['img']),
                             dict(type='Collect', keys=['img'])])]


PIPELINES = {
    'recipes': pipeline(SETR, dict(type='ResizeToMultiple', size_divisor=14),
                        dict(type='RandomFlip'), NORMALIZE),
    'fit': pipeline(dict(type='Resize', keep_ratio=True), NORMALIZE),
    'stretch': pipeline(dict(type='Resize', keep_ratio=False), NORMALIZE, img_scale=(90, 70)),
    'least side': pipeline(dict(type='Resize', keep_ratio=True, min_size=60), NORMALIZE),
    'flips and scales': pipeline(
        dict(type='Resize', keep_ratio=True), dict(type='ResizeToMultiple', size_divisor=14),
        dict(type='RandomFlip'), NORMALIZE, img_ratios=[0.75, 1.0, 1.5], flip=True,
        flip_direction=['horizontal', 'vertical']),
    'bgr': pipeline(dict(type='Resize', keep_ratio=True), dict(
        NORMALIZE, mean=[101.3, 99.7, 120.1], to_rgb=False)),
    'padded': pipeline(dict(type='Resize', keep_ratio=True), dict(type='RandomFlip'), NORMALIZE,
                       dict(type='Pad', size_divisor=32), flip=True),
    'padded short side': pipeline(dict(type='Resize', keep_ratio=True), NORMALIZE,
                                  dict(type='PadShortSide', size=112)),
}


@pytest.mark.parametrize('name', PIPELINES)
def test_inputs_have_the_bits_of_the_pipeline(name, tmp_path):
    rng, steps = np.random.default_rng(0), PIPELINES[name]
    run, prepare = Compose(steps), Preprocessing(**preprocessing_of(steps))
    for size in ((40, 90), (131, 57), (64, 64)):
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / 'a.png')
        expected = run(dict(img_prefix=str(tmp_path), img_info=dict(filename='a.png')))
        views = prepare(pixels)
        assert len(views) == len(expected['img'])
        for view, image, meta in zip(views, expected['img'], expected['img_metas']):
            assert view.image.dtype == image.dtype and view.image.equal(image)
            meta = meta.data
            assert view.kept == meta['img_shape'][:2]
            assert view.flip == (meta['flip_direction'] if meta['flip'] else None)


@pytest.mark.parametrize('steps, message', [
    (PIPELINES['recipes'][1:], "has the steps ['MultiScaleFlipAug']"),
    ([dict(type='LoadImageFromFile', to_float32=True), PIPELINES['fit'][1]], 'to_float32=True'),
    (pipeline(NORMALIZE), 'has no Resize'),
    (pipeline(SETR), 'has no Normalize'),
    (pipeline(NORMALIZE, SETR), 'step SETR_Resize: expected'),
    (pipeline(SETR, dict(type='CLAHE'), NORMALIZE), 'step CLAHE: expected'),
    (pipeline(dict(SETR, ratio_range=(0.5, 2)), NORMALIZE), 'ratio_range=(0.5, 2)'),
    (pipeline(SETR, dict(type='ResizeToMultiple', interpolation='nearest'), NORMALIZE),
     "interpolation='nearest'"),
    (pipeline(SETR, NORMALIZE, dict(type='Pad', size=(99, 99))), 'size=(99, 99)'),
    (pipeline(SETR, NORMALIZE, dict(type='PadShortSide', size=9, pad_val=1)), 'pad_val=1'),
    (pipeline(SETR, NORMALIZE, flip=True), 'no RandomFlip'),
    (pipeline(SETR, NORMALIZE, img_scale=None), 'without img_scale'),
    (pipeline(SETR, dict(NORMALIZE, by=3)), 'Normalize has by=3'),
])
def test_what_cannot_be_repeated_is_refused(steps, message):
    with pytest.raises(InputError) as error:
        preprocessing_of(steps)
    assert message in str(error.value)
