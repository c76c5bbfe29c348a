"""Configs of transformers in a folder: read without running code of it, and checked."""
import hashlib
import json
import os.path as osp
from collections.abc import Mapping
from typing import Any

from ...errors import InputError, words_of
from ...schema import load_json
from ..tuning import KEY
from .upstream_vit import IMAGENET_MEAN, IMAGENET_STD, as_triple

REFUSED = {
    'vit_mae': "transformers' class drops and shuffles patches: use timm's "
               'vit_base_patch16_224.mae and its sizes',
    'siglip2_vision_model': 'it takes lists of patches in the place of images (NaFlex): use a '
                            'release of a fixed size, e.g. siglip2-base-patch16-256',
    'siglip2': 'it takes lists of patches in the place of images (NaFlex): use a release of a '
               'fixed size, e.g. siglip2-base-patch16-256'}
# Mean and standard deviation where the folder does not have preprocessor_config.json.
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
DEFAULTS = {'clip_vision_model': CLIP, 'aimv2_vision_model': CLIP, 'siglip_vision_model': HALF,
            'vit': HALF, 'beit': HALF}


def read_config(folder: str, overrides: Mapping[str, Any] | None = None) -> Any:
    """Reads the vision config of a folder, without running code of it.

    Args:
        folder: Folder with config.json.
        overrides: Entries of the vision config in the place of the folder's.

    Raises:
        InputError: If there is none, or the library has no such model.
    """
    path = osp.join(folder, 'config.json')
    content = load_json(path, 'a config of transformers')
    kind = content.get('model_type') if isinstance(content, dict) else None
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        if str(kind).startswith('intern_vit'):
            raise InputError(f'{path}: model_type {kind!r} is for code of the folder, which is '
                             f"never run: such weights are those of {KEY}.type='InternViT6B', with "
                             f'pretrained={folder!r}')
        code = ', and code of a folder is never run' if 'auto_map' in (content or {}) else ''
        raise InputError(f'{path}: model_type {kind!r} is none of transformers{code}: expected a '
                         'vision transformer that is part of the library, e.g. dinov2, '
                         'dinov3_vit, siglip or internvl')
    try:
        config = _vision_config(CONFIG_MAPPING, kind, content)
    except Exception as error:  # strict configs raise errors of their own kinds
        raise InputError(f'{path}: transformers does not take it: {words_of(error)}') from error
    if config.model_type in REFUSED:
        raise InputError(f'{path}: model_type {config.model_type!r} does not give feature maps of '
                         f'images: {REFUSED[config.model_type]}')
    for name, value in (overrides or {}).items():
        if not hasattr(config, name):
            raise InputError(f'{KEY}.overrides: a config of {config.model_type} has no {name!r}')
        try:
            setattr(config, name, value)
        except Exception as error:  # strict configs raise errors of their own kinds
            raise InputError(f'{KEY}.overrides: a config of {config.model_type} does not take '
                             f'{name}={value!r}: {words_of(error)}') from error
    return config


def _vision_config(known: Mapping[str, Any], kind: str, content: Mapping[str, Any]) -> Any:
    """Returns the config of a vision model, or of that within a larger one."""
    vision = content.get('vision_config')
    if not isinstance(vision, Mapping):
        return known[kind].from_dict(content)
    own = str(vision.get('model_type'))
    config_class = known[own] if own in known else known[kind].sub_configs['vision_config']
    return config_class.from_dict({name: value for name, value in vision.items()
                                   if name != 'model_type'})


def normalization_of(folder: str, config: Any
                     ) -> tuple[tuple[float, ...], tuple[float, ...], bool]:
    """Returns mean and standard deviation that a network expects, and whether the folder says so.

    Args:
        folder: Folder that may have preprocessor_config.json or processor_config.json.
        config: Vision config, which says it for RADIO, and whose type has a default.
    """
    mean, std = (as_triple(getattr(config, name, None)) for name in ('norm_mean', 'norm_std'))
    if mean and std:
        return mean, std, True
    for name in ('preprocessor_config.json', 'processor_config.json'):
        path = osp.join(folder, name)
        if not osp.isfile(path):
            continue
        content = load_json(path, 'the config of an image processor')
        content = content.get('image_processor', content) if isinstance(content, dict) else {}
        content = content if isinstance(content, dict) else {}
        if content.get('do_normalize') is False:
            return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), True
        mean, std = as_triple(content.get('image_mean')), as_triple(content.get('image_std'))
        if mean and std and min(std) > 0:
            return mean, std, True
    return *DEFAULTS.get(config.model_type, (IMAGENET_MEAN, IMAGENET_STD)), False


def patch_size_of(config: Any, folder: str) -> int:
    """Returns the side in pixels of a patch of a plain vision transformer.

    Raises:
        InputError: If the network is none, or takes other images than RGB.
    """
    sides = getattr(config, 'patch_size', None)
    sides = list(sides) if isinstance(sides, (list, tuple)) else [sides]
    numbers = [*sides, *(getattr(config, name, None) for name in (
        'hidden_size', 'num_hidden_layers', 'num_attention_heads'))]
    if not all(isinstance(number, int) and number > 0 for number in numbers) or (
            len(set(sides)) != 1) or any(
            hasattr(config, name) for name in ('depths', 'num_frames')):
        raise no_grid(config, folder)
    if getattr(config, 'num_channels', 3) != 3:
        raise InputError(f'{folder}/config.json: num_channels={config.num_channels!r}: expected 3, '
                         'for images in RGB')
    return sides[0]


def no_grid(config: Any, folder: str) -> InputError:
    """Returns the error of a network that has no patch grid."""
    return InputError(f'{KEY}.name={folder!r} is a {config.model_type}, which has no patch grid '
                      'that all its layers share: expected a plain vision transformer, e.g. '
                      'dinov2')


def keeps_positions(config: Any) -> bool:
    """Returns whether the library adds learned positions as they are, to a grid of one size."""
    return config.model_type == 'aimv2_vision_model' and not config.is_native


def hash_of(config: Any) -> str:
    """Returns a hash of what a config says of the network, for keys of caches."""
    said = {name: value for name, value in config.to_diff_dict().items()
            if name not in ('transformers_version', 'dtype', 'torch_dtype', 'architectures')}
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:12]
