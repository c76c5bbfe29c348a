"""mmseg's functions for inference, on checkpoints and images of any kind."""
from collections.abc import Mapping
from functools import wraps
from typing import Any

import numpy as np
from mmseg.apis import inference
from mmseg.utils import get_root_logger
from torch import nn

from ..datasets.image_arrays import as_colour
from ..errors import InputError
from ..models.backbone_options import traits_of


def infer_from_any_input() -> None:
    """Lets ``mmseg.apis.init_segmentor`` and ``inference_segmentor`` take more kinds of input.

    mmseg 0.30 ends in a KeyError where a checkpoint has no names of classes, and in an error of
    OpenCV on a grey array; a head of another number of classes stays random. Both functions look
    up by name what is replaced here, so that it does not matter which was imported first. Can go
    with mmseg 0.30.
    """
    inference.load_checkpoint = _with_class_names(inference.load_checkpoint)
    inference.LoadImage = LoadAnyImage


def _with_class_names(load_checkpoint: Any) -> Any:
    @wraps(load_checkpoint)
    def load(model: nn.Module, filename: str, *args, **kwargs) -> dict:
        checkpoint = load_checkpoint(model, filename, *args, **kwargs)
        if traits_of(getattr(model, 'backbone', None)).is_ours:
            _refuse_untrained(model, checkpoint.get('state_dict', checkpoint), filename)
        meta = dict(checkpoint.get('meta') or {})
        if meta.get('CLASSES') is None:
            meta['CLASSES'] = [f'class {k}' for k in range(model.decode_head.num_classes)]
            get_root_logger().warning('%s names no classes: set model.CLASSES and model.PALETTE '
                                      'for pictures', filename)
        meta.setdefault('PALETTE', None)
        return {**checkpoint, 'meta': meta}

    return load


def _refuse_untrained(model: nn.Module, weights: Mapping[str, Any], filename: str) -> None:
    """Refuses a checkpoint that leaves part of the network at random, which mmcv only prints.

    Raises:
        InputError: If the checkpoint lacks a tensor, or has it in another shape. What testing does
            not use, auxiliary heads, may be missing.
    """
    shapes = {name.removeprefix('module.'): tuple(getattr(tensor, 'shape', ()))
              for name, tensor in weights.items()}
    for name, tensor in model.state_dict().items():
        if name.startswith('auxiliary_head.') or name.endswith('num_batches_tracked'):
            continue
        if shapes.get(name) != tuple(tensor.shape):
            found = f'of the shape {shapes[name]}' if name in shapes else 'missing'
            raise InputError(f'checkpoint {filename} is not of this config: {name} is {found}, '
                             f'expected {tuple(tensor.shape)}; give the config that it was '
                             'trained with')


class LoadAnyImage(inference.LoadImage):
    """mmseg's first step of inference, for grey arrays and for files that cannot be decoded."""

    def __call__(self, results: dict) -> dict:
        """Loads ``results['img']``, a path or an array (H, W), (H, W, 1), (H, W, 3), (H, W, 4).

        Raises:
            InputError: If it is no image.
        """
        image = results['img']
        if isinstance(image, np.ndarray):
            return super().__call__({**results, 'img': as_colour(image)})
        try:
            return super().__call__(results)
        except AttributeError as error:  # OpenCV returned nothing
            raise InputError(f'image {image} cannot be decoded: expected a JPEG, PNG or other '
                             'picture file') from error
