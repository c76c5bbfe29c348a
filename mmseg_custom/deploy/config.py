"""``config.json`` of an exported segmentor: everything but its weights, and nothing that is run.

    segmentor/
      config.json         this: network, windows, preprocessing, precision, classes
      model.safetensors   weights, in the dtypes that they are computed with or rounded from
      README.md           model card, in the Hub's form
      LICENSE.md          note on licences
      backbone/           config.json of a network of timm or transformers, where one was named by
                          its folder

Classes are looked up in short lists (:mod:`.build`), so that a file can name nothing else.
"""
import os
from typing import Any

from ..errors import InputError
from ..models.segmentors.window_inference import check_test_cfg
from ..schema import (
    anything,
    array,
    choice,
    integer,
    load_json,
    nullable,
    number,
    record,
    switch,
    text,
    validate,
)
from ..version import __version__
from .preprocessing import COVER, FIT, FLIPS, STRETCH

CONFIG, WEIGHTS, CARD, LICENSE_NOTE = 'config.json', 'model.safetensors', 'README.md', 'LICENSE.md'
BACKBONE_FOLDER = 'backbone'
FORMAT, FORMAT_VERSION = 'mmseg_custom.deploy', 1
MOST = 1 << 20  # of any number among the options of the network
EXPECTED = f'the {CONFIG} of a folder that tools/export.py wrote'

_SIDE = integer(1, 1 << 20)
_TWO_SIDES = array(_SIDE, 'two numbers of pixels', 2, 2)
_LEVELS = array(number(), 'three numbers, for red, green and blue', 3, 3)
_CHECK = record(dict(
    format=choice(FORMAT), format_version=integer(1), written_by=text,
    backbone=record(dict(type=text)), adapters=nullable(record(dict(
        r=integer(1), alpha=number(0), targets=array(text, 'names of layers', 1),
        blocks=array(integer(0), 'numbers of blocks', 1)), dict(use_dora=anything))),
    decode_head=record(dict(type=text, num_classes=integer(1)), dict(align_corners=switch)),
    windows=record(dict(mode=choice('slide', 'whole')), dict(
        crop_size=_TWO_SIDES, stride=_TWO_SIDES, window_batch=nullable(integer(1)))),
    preprocessing=record(dict(
        views=array(record(dict(scale=_TWO_SIDES, flip=nullable(choice(*FLIPS)))), 'views', 1),
        resize=choice(FIT, COVER, STRETCH), mean=_LEVELS, std=_LEVELS), dict(
        least_short=nullable(_SIDE), multiple=nullable(_SIDE), pad_multiple=nullable(_SIDE),
        pad_least=nullable(_SIDE), channels=choice('rgb', 'bgr')), None),
    precision=record(dict(backbone=choice('bfloat16', 'float16', 'float32'),
                          heads=choice('bfloat16', 'float32'))),
    classes=array(text, 'names of classes', 1, 32767),
    palette=array(array(integer(0, 255), 'a colour such as [0, 0, 200]', 3, 3), 'colours', 1),
    first_label=integer(0, 1), ignore_index=integer(0, 255)))


def read_config(folder: str) -> dict[str, Any]:
    """Reads ``config.json`` of a folder.

    Args:
        folder: Folder that ``tools/export.py`` wrote.

    Raises:
        InputError: If it is missing or damaged, of another program, or of a later version.
    """
    path = os.path.join(folder, CONFIG)
    if not os.path.isfile(path):
        raise InputError(f'{folder} holds no {CONFIG}: expected a folder that tools/export.py '
                         'wrote')
    content = load_json(path, EXPECTED)
    if not isinstance(content, dict) or content.get('format') != FORMAT:
        raise InputError(f'{path} is of another program (its format is not {FORMAT!r}): expected '
                         f'{EXPECTED}')
    version = content.get('format_version')
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InputError(f'{path} has format_version {version}, and this is {__version__} of the '
                         f'package, which reads up to {FORMAT_VERSION}: install a newer one (it '
                         f'was written by {content.get("written_by")})')
    check_config(content, path)
    return content


def check_config(content: Any, path: str) -> None:
    """Checks the content of ``config.json``.

    Raises:
        InputError: Naming the first key that does not fit.
    """
    validate(content, _CHECK, path, f'expected {EXPECTED}')
    for part in ('backbone', 'decode_head', 'adapters'):
        _check_numbers(content[part], part, path)
    try:
        check_test_cfg(content['windows'])
    except InputError as error:
        raise InputError(f'{path}: {error}') from error
    classes, colours = len(content['classes']), len(content['palette'])
    outputs = content['decode_head']['num_classes']
    if colours != classes or outputs not in (classes, classes - 1 if classes == 2 else classes):
        raise InputError(f'{path}: {classes} classes, {colours} colours and a head of {outputs} '
                         'classes: expected the same number of each')
    if 0 in content['preprocessing']['std']:
        raise InputError(f'{path}: preprocessing.std: expected no 0')


def _check_numbers(value: Any, place: str, path: str) -> None:
    """Refuses a part of the network with a number that memory could not hold the tensors of."""
    if isinstance(value, (int, float)) and not abs(value) <= MOST:
        raise InputError(f'{path}: {place}: {value!r}, expected a number of at most {MOST}')
    if isinstance(value, (dict, list)):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            _check_numbers(one, f'{place}.{key}', path)
