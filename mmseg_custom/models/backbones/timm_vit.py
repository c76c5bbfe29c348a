"""Vision transformers of timm, by their names or from a folder of the Hugging Face hub.

B batch, D width, H W pixels, h w patch grid.
"""
import os.path as osp
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoint.provenance import Place
from ...errors import InputError, hint, words_of
from ..tuning import KEY
from .upstream_vit import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NetworkFacts,
    UpstreamViT,
    as_triple,
    building,
    same_names,
)

# Parts behind the layers, and one that is for training.
UNNEEDED = {'head', 'head_dist', 'fc_norm', 'attn_pool', 'mask_token'}


class TimmViT(UpstreamViT):
    """A vision transformer of timm, without its head (Wightman, "PyTorch Image Models", 2019).

    Args:
        name: Name of an architecture, with or without the tag of weights behind a dot, which says
            how images are normalised: 'vit_large_patch14_dinov2.lvd142m'.
        overrides: Arguments of timm's constructor in the place of its own.
        dtype: Dtype of the parameters.
        on_meta: Whether parameters are without values.
        config: Content of config.json of a folder of the hub: ``model_args``, and of
            ``pretrained_cfg`` mean and standard deviation.

    Raises:
        InputError: If timm has no such network, or it has no patch grid.
    """

    def __init__(self, name: str, overrides: Mapping[str, Any], dtype: torch.dtype, on_meta: bool,
                 config: Mapping[str, Any] | None = None):
        super().__init__()
        self.vit, dynamic = _create(name, overrides, dtype, on_meta, config or {})
        width, patch_size = _grid_of(self.vit, name)
        depth = len(self.vit.feature_info)
        whole = _parts_of(self.vit)
        self.vit.prune_intermediate_layers([depth - 1], prune_norm=False, prune_head=True)
        self._unneeded = UNNEEDED | whole - _parts_of(self.vit)
        own = self.vit.pretrained_cfg
        size = overrides.get('img_size', own['input_size'][-2:])
        size = (size, size) if isinstance(size, int) else tuple(size)
        architecture = name.partition('.')[0]
        others = ''.join(f', {key}={value!r}' for key, value in sorted(overrides.items()))
        self.facts = NetworkFacts(
            architecture=f'{architecture} of timm', record=f'{architecture}{others} of timm',
            embed_dim=width, patch_size=patch_size, depth=depth, img_size=size[0],
            mean=as_triple(own.get('mean')) or IMAGENET_MEAN,
            std=as_triple(own.get('std')) or IMAGENET_STD,
            names_normalization=bool(own.get('mean') and own.get('std')),
            has_norm=not isinstance(getattr(self.vit, 'norm', nn.Identity()), nn.Identity),
            only_size=None if dynamic or not own.get('fixed_input_size') else size)

    def forward(self, images: Tensor, layers: Sequence[int], norm: bool = False) -> list[Tensor]:
        """See :class:`.upstream_vit.UpstreamViT`; layers behind the last one do not run."""
        return self.vit.forward_intermediates(
            self._cast(images), indices=list(layers), norm=norm, stop_early=True,
            output_fmt='NCHW', intermediates_only=True)

    def find(self, names: Collection[str]) -> tuple[dict[str, Place], list[str]]:
        """See :class:`.upstream_vit.UpstreamViT`: a file has timm's own names."""
        return same_names(names, self._unneeded)


def is_timm_config(content: Mapping[str, Any]) -> bool:
    """Returns whether config.json of a folder is one that timm writes."""
    return isinstance(content.get('architecture'), str) and 'model_type' not in content


def check_name(name: str) -> str:
    """Checks that timm has a network of a name, and returns it as timm writes it.

    Raises:
        InputError: If it has not; the message has the nearest name, or says how weights of a hub
            are fetched.
    """
    import timm
    for prefix in ('hf-hub:', 'hf_hub:', 'timm/'):
        name = name.removeprefix(prefix)
    architecture, _, tag = name.partition('.')
    if '/' in name or osp.sep in name:
        is_path = name.startswith(('.', '/', '~')) or osp.isdir(osp.dirname(name))
        source, folder = ('NAME', name) if is_path else (name, 'FOLDER')
        raise InputError(
            f'{KEY}.name={name!r} is neither a folder that is there nor a name of timm: nothing is '
            'downloaded here; fetch a folder of the Hugging Face hub where there is a network '
            f'(hf download {source} --local-dir {folder}), bring it here, and give its path as '
            f'{KEY}.name')
    if not timm.is_model(architecture):
        raise InputError(f'{KEY}.name={name!r}: timm {timm.__version__} has no such network'
                         f'{hint(architecture, timm.list_models())}; expected a name of timm, or '
                         'a folder with config.json')
    tags = [each.partition('.')[2] for each in timm.list_pretrained(f'{architecture}.*')]
    if tag and tag not in tags:
        raise InputError(f'{KEY}.name={name!r}: timm knows no weights {tag!r} of {architecture}'
                         f'{hint(tag, tags)}: expected one of {", ".join(tags) or "none"}')
    return name


def _create(name: str, overrides: Mapping[str, Any], dtype: torch.dtype, on_meta: bool,
            config: Mapping[str, Any]) -> tuple[nn.Module, bool]:
    """Returns the network, and whether it takes images of any size by itself."""
    import timm
    told, given = (config.get(key) or {} for key in ('pretrained_cfg', 'model_args'))
    if not isinstance(told, Mapping) or not isinstance(given, Mapping):
        raise InputError(f'{KEY}.name: config.json of {name} has pretrained_cfg={told!r} and '
                         f'model_args={given!r}: expected objects')
    options = {**given, **overrides}
    overlay = {key: value for key in ('mean', 'std') if (value := as_triple(told.get(key)))}
    for dynamic in (True, False):
        sizes: dict[str, Any] = dict(dynamic_img_size=True) if dynamic else {}
        try:
            with building(dtype, on_meta):
                return timm.create_model(name, pretrained=False, pretrained_cfg_overlay=overlay,
                                         **sizes, **options), dynamic
        except TypeError as error:
            # Networks without resampled positions do not know the argument.
            if not dynamic or 'dynamic_img_size' not in str(error):
                raise InputError(f'{KEY}.name={name!r} with overrides={options}: timm cannot build '
                                 f'it: {words_of(error)}') from error
        except (ValueError, AssertionError, RuntimeError, ArithmeticError) as error:
            raise InputError(f'{KEY}.name={name!r} with overrides={options}: timm cannot build '
                             f'it: {words_of(error)}') from error
    raise AssertionError('unreachable')


def _parts_of(vit: nn.Module) -> set[str]:
    """Returns the names of the parts that have parameters."""
    return {name.partition('.')[0] for name, _ in vit.named_parameters()}


def _grid_of(vit: nn.Module, name: str) -> tuple[int, int]:
    """Returns the width and the patch size of a network whose layers have one grid."""
    info = getattr(vit, 'feature_info', None)
    info = info if isinstance(info, list) else []
    kinds = {(layer.get('num_chs'), layer.get('reduction')) for layer in info}
    if len(kinds) != 1 or not all(hasattr(vit, each) for each in (
            'forward_intermediates', 'prune_intermediate_layers')):
        strides = ', '.join(str(layer.get('reduction')) for layer in info[:6])
        raise InputError(f'{KEY}.name={name!r} is a {type(vit).__name__}, which has no patch grid '
                         f'that all its layers share (strides {strides or "unknown"}): expected a '
                         'plain vision transformer, e.g. vit_base_patch14_dinov2')
    width, patch_size = next(iter(kinds))
    sides = getattr(getattr(vit, 'patch_embed', None), 'patch_size', patch_size)
    if isinstance(sides, (list, tuple)) and len(set(sides)) > 1:
        raise InputError(f'{KEY}.name={name!r} has patches of {sides[0]}x{sides[1]} pixels: '
                         'expected square ones')
    return width, patch_size
