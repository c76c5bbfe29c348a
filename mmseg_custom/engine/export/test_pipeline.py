"""Test pipeline of a config -> preprocessing of an exported segmentor.

    LoadImageFromFile, MultiScaleFlipAug of: Resize or SETR_Resize, ResizeToMultiple, RandomFlip,
    Normalize, Pad or PadShortSide, ImageToTensor or DefaultFormatBundle, Collect

in this order, which all recipes have. What else a pipeline does cannot be repeated without mmcv.
"""
from collections.abc import Mapping, Sequence
from typing import Any

from ...deploy.preprocessing import COVER, FIT, STRETCH
from ...errors import InputError

ORDER = ('Resize', 'ResizeToMultiple', 'RandomFlip', 'Normalize', 'Pad', 'ToTensor', 'Collect')
SAME = {'SETR_Resize': 'Resize', 'PadShortSide': 'Pad', 'ImageToTensor': 'ToTensor',
        'DefaultFormatBundle': 'ToTensor'}
# Options that change nothing in tests, or not the image.
WITHOUT_EFFECT = {
    'LoadImageFromFile': ('file_client_args',), 'RandomFlip': ('prob', 'direction'),
    'ImageToTensor': ('keys',), 'Collect': ('keys', 'meta_keys'), 'Pad': ('seg_pad_val',),
    'PadShortSide': ('seg_pad_val',), 'Resize': ('multiscale_mode', 'img_scale'),
    'SETR_Resize': ('multiscale_mode', 'img_scale')}
Step = Mapping[str, Any]


def preprocessing_of(pipeline: Sequence[Step]) -> dict[str, Any]:
    """Returns the arguments of :class:`...deploy.preprocessing.Preprocessing` for a test pipeline.

    Args:
        pipeline: Steps of ``data.test.pipeline``.

    Raises:
        InputError: If it has a step or an option that is not known here.
    """
    kinds = [step.get('type') for step in pipeline]
    if kinds != ['LoadImageFromFile', 'MultiScaleFlipAug']:
        raise InputError(f'data.test.pipeline has the steps {kinds}: expected LoadImageFromFile '
                         'and MultiScaleFlipAug, as the recipes have them')
    load, augment = pipeline
    for option, value in (('to_float32', False), ('color_type', 'color'),
                          ('imdecode_backend', 'cv2')):
        if load.get(option, value) != value:
            raise _unknown('LoadImageFromFile', option, load[option])
    _check_options(load, 'to_float32', 'color_type', 'imdecode_backend')
    steps = _in_order(augment['transforms'])
    found: dict[str, Any] = {**_resize(steps.get('Resize')), **_normalize(steps.get('Normalize')),
                             'views': _views(augment, 'RandomFlip' in steps)}
    if 'ResizeToMultiple' in steps:
        step = steps['ResizeToMultiple']
        _check_options(step, 'size_divisor', 'interpolation')
        if step.get('interpolation') not in (None, 'bilinear'):
            raise _unknown('ResizeToMultiple', 'interpolation', step['interpolation'])
        found['multiple'] = step.get('size_divisor', 32)
    return {**found, **_pad(steps.get('Pad'))}


def _in_order(transforms: Sequence[Step]) -> dict[str, Step]:
    """Returns the steps of ``MultiScaleFlipAug`` by what they do.

    Raises:
        InputError: For another step or order.
    """
    steps: dict[str, Step] = {}
    last = -1
    for step in transforms:
        kind = step['type']
        name = SAME.get(kind, kind)
        if name not in ORDER or ORDER.index(name) <= last:
            raise InputError(f'data.test.pipeline: MultiScaleFlipAug has the step {kind}: expected '
                             f'steps of {", ".join(ORDER[:5])} in this order; leave it out, or '
                             'test with mmcv')
        last = ORDER.index(name)
        steps[name] = step
        if kind in ('RandomFlip', 'ImageToTensor', 'DefaultFormatBundle', 'Collect'):
            _check_options(step)
    return steps


def _resize(step: Step | None) -> dict[str, Any]:
    """Returns ``resize`` and ``least_short``."""
    if step is None:
        raise InputError('data.test.pipeline has no Resize, so that images of any size would be '
                         "one window's input: add dict(type='Resize', keep_ratio=True)")
    _check_options(step, 'keep_ratio', 'min_size', 'ratio_range', 'crop_size', 'setr_multi_scale')
    if step.get('ratio_range') is not None:
        raise _unknown(step['type'], 'ratio_range', step['ratio_range'])
    if not step.get('keep_ratio', True):
        return dict(resize=STRETCH)
    if step['type'] == 'SETR_Resize' and step.get('setr_multi_scale'):
        return dict(resize=COVER, least_short=int(step['crop_size'][0]))
    if step.get('min_size') is not None:
        return dict(resize=COVER, least_short=int(step['min_size']))
    return dict(resize=FIT)


def _normalize(step: Step | None) -> dict[str, Any]:
    """Returns ``mean``, ``std`` and ``channels``."""
    if step is None:
        raise InputError('data.test.pipeline has no Normalize: add it to the transforms of '
                         'MultiScaleFlipAug')
    _check_options(step, 'mean', 'std', 'to_rgb')
    return dict(mean=[float(x) for x in step['mean']], std=[float(x) for x in step['std']],
                channels='rgb' if step.get('to_rgb', True) else 'bgr')


def _pad(step: Step | None) -> dict[str, Any]:
    """Returns ``pad_multiple`` or ``pad_least``; nothing without padding."""
    if step is None:
        return {}
    _check_options(step, 'size', 'size_divisor', 'pad_val')
    if step.get('pad_val'):  # OpenCV gives it to the first channel alone.
        raise _unknown(step['type'], 'pad_val', step['pad_val'])
    if step['type'] == 'PadShortSide':
        return dict(pad_least=int(step['size']))
    if step.get('size') is not None:
        raise _unknown('Pad', 'size', step['size'])
    return dict(pad_multiple=int(step['size_divisor']))


def _views(augment: Step, flips: bool) -> list[dict[str, Any]]:
    """Returns the views of ``MultiScaleFlipAug``, in its order."""
    _check_options(augment, 'transforms', 'img_scale', 'img_ratios', 'flip', 'flip_direction')
    scale, ratios = augment.get('img_scale'), augment.get('img_ratios')
    if scale is None:
        raise InputError('data.test.pipeline: MultiScaleFlipAug without img_scale leaves images at '
                         'their own size: set img_scale=(long, short) in pixels')
    scales = scale if isinstance(scale, list) else [scale]
    if ratios is not None and not isinstance(scale, list):
        scales = [(int(scale[0] * ratio), int(scale[1] * ratio))
                  for ratio in (ratios if isinstance(ratios, (list, tuple)) else [ratios])]
    directions = augment.get('flip_direction', 'horizontal')
    directions = directions if isinstance(directions, list) else [directions]
    if augment.get('flip') and not flips:
        raise InputError('data.test.pipeline: MultiScaleFlipAug has flip=True, and no RandomFlip '
                         'among its transforms: add one, or set flip=False')
    # mmseg makes an unflipped view for each direction.
    flips_of_scale: list[str | None] = [None] * len(directions)
    if augment.get('flip'):
        flips_of_scale += directions
    return [dict(scale=[int(x) for x in each], flip=flip) for each in scales
            for flip in flips_of_scale]


def _check_options(step: Step, *known: str) -> None:
    """Refuses an option that is neither known nor without effect."""
    kind = step['type']
    for option, value in step.items():
        if option not in ('type', *known, *WITHOUT_EFFECT.get(kind, ())):
            raise _unknown(kind, option, value)


def _unknown(kind: str, option: str, value: object) -> InputError:
    return InputError(f'data.test.pipeline: {kind} has {option}={value!r}, which an exported '
                      'segmentor cannot repeat: leave it out')
