"""Vision transformers of transformers, from a folder with config.json; no code of it is run.

B batch, D width, N tokens, H W pixels, h w patch grid.
"""
import inspect
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoint.provenance import Place
from ...errors import InputError, words_of
from ..tuning import KEY
from .transformers_config import (
    hash_of,
    keeps_positions,
    no_grid,
    normalization_of,
    patch_size_of,
    read_config,
)
from .upstream_vit import NetworkFacts, UpstreamViT, building, is_unneeded

NORMS = ('layernorm', 'post_layernorm', 'norm', 'layer_norm', 'rms_norm')  # behind the last layer
UNNEEDED = {'pooler', 'head', 'input_conditioner'}
# Before the names of a vision transformer in the file of a larger model; '' for its own file.
PREFIXES = ('', 'vision_model.', 'vision_tower.', 'model.vision_tower.', 'model.vision_model.',
            'vision_tower.vision_model.', 'model.vision_tower.vision_model.', 'vision_encoder.')


class TransformersViT(UpstreamViT):
    """A vision transformer of transformers, or the vision tower of a larger model of it.

    Args:
        folder: Folder with config.json.
        overrides: Entries of the vision config in the place of the folder's.
        dtype: Dtype of the parameters.
        on_meta: Whether parameters are without values.

    Raises:
        InputError: If transformers has no such network, or it has no patch grid.
    """

    def __init__(self, folder: str, overrides: Mapping[str, Any], dtype: torch.dtype,
                 on_meta: bool):
        super().__init__()
        config = read_config(folder, overrides)
        patch_size = patch_size_of(config, folder)
        self.vit = _create(config, folder, dtype, on_meta)
        for name in ('pooler', 'head'):
            if isinstance(getattr(self.vit, name, None), nn.Module):
                setattr(self.vit, name, None)
        mean, std, is_named = normalization_of(folder, config)
        if hasattr(self.vit, 'make_preprocessor_external'):  # of RADIO, which normalises by itself
            self.vit.make_preprocessor_external()
        size = getattr(config, 'image_size', patch_size)
        size = (size, size) if isinstance(size, int) else tuple(size or ())
        if len(size) != 2 or not all(isinstance(x, int) and x >= patch_size for x in size):
            raise InputError(f'{folder}/config.json: image_size={size}: expected {patch_size} or '
                             'more pixels, a patch')
        architecture = f'{config.model_type} of transformers'
        self.facts = NetworkFacts(
            architecture=architecture, record=f'{architecture}, config {hash_of(config)}',
            embed_dim=config.hidden_size, patch_size=patch_size, depth=config.num_hidden_layers,
            img_size=size[0], mean=mean, std=std, names_normalization=is_named,
            has_norm=self._norm is not None, only_size=size if keeps_positions(config) else None)
        self._options = _options_of(self.vit)

    def forward(self, images: Tensor, layers: Sequence[int], norm: bool = False) -> list[Tensor]:
        """See :class:`.upstream_vit.UpstreamViT`; layers behind the last one do not run."""
        outs: dict[int, Tensor] = {}

        def keep(i: int, output: Tensor | tuple) -> None:
            outs[i] = output[0] if isinstance(output, tuple) else output
            if i == layers[-1]:
                raise _Done

        hooks = [self._layers[i].register_forward_hook(
            lambda _, inputs, output, i=i: keep(i, output)) for i in layers]
        try:
            self.vit(self._cast(images), **self._options)
        except _Done:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        size = self.facts.patch_size
        grid = (images.shape[2] // size, images.shape[3] // size)
        tokens = [outs[i] for i in layers]
        self._check_tokens(tokens[0], len(images), grid)
        if norm and self._norm is not None:
            tokens = [self._norm(x) for x in tokens]
        return [_map_of(x, grid) for x in tokens]

    def _check_tokens(self, tokens: Tensor, batch: int, grid: tuple[int, int]) -> None:
        """Refuses what other towers give: all images in one sequence, or maps."""
        width = self.facts.embed_dim
        if tokens.ndim != 3 or tokens.shape[::2] != (batch, width) or (
                tokens.shape[1] < grid[0] * grid[1]):
            raise InputError(
                f'{KEY}.name: a layer of {self.facts.architecture} returns {tuple(tokens.shape)}: '
                f'expected ({batch}, {grid[0] * grid[1]} or more, {width}), the tokens of '
                f'{grid[0]}x{grid[1]} patches of each image; take another network, e.g. dinov2')

    def find(self, names: Collection[str]) -> tuple[dict[str, Place], list[str]]:
        """See :class:`.upstream_vit.UpstreamViT`.

        Files may have names of earlier versions of the library, which it translates itself.
        """
        prefixes = [*PREFIXES, f'{self.vit.base_model_prefix}.'] if (
            self.vit.base_model_prefix) else PREFIXES
        targets = self.vit.state_dict().keys()
        best = max(prefixes, key=lambda prefix: (
            len(self._translated(names, prefix).keys() & targets), len(prefix)))
        found = self._translated(names, best)
        beside = [name for name in names if not name.startswith(best)]
        left = {place[0] for name, place in found.items() if is_unneeded(name, UNNEEDED)}
        return {name: place for name, place in found.items() if place[0] not in left}, sorted(
            left.union(beside))

    def _translated(self, names: Collection[str], prefix: str) -> dict[str, Place]:
        """Translates the names behind a prefix, as the library does when it loads a file."""
        found: dict[str, Place] = {}
        for name in names:
            if not name.startswith(prefix):
                continue
            own = name.removeprefix(prefix)
            for transform in self._renamings:
                own, _ = transform.rename_source_key(own)
            parts = [own]
            for transform in self._chunks:
                renamed, matched = transform.rename_source_key(own)
                if matched is not None:
                    first = transform.target_patterns[0]
                    parts = [renamed.replace(first, target, 1)
                             for target in transform.target_patterns]
                    break
            found.update((part, (name, i, len(parts))) for i, part in enumerate(parts))
        return found

    @cached_property
    def _transforms(self) -> list:
        from transformers.conversion_mapping import get_model_conversion_mapping
        return get_model_conversion_mapping(self.vit)

    @cached_property
    def _renamings(self) -> list:
        from transformers.core_model_loading import WeightConverter
        return [each for each in self._transforms if not isinstance(each, WeightConverter)]

    @cached_property
    def _chunks(self) -> list:
        """Transforms that split a tensor along its first axis; others are for no plain ViT."""
        from transformers.core_model_loading import Chunk, WeightConverter
        return [each for each in self._transforms if isinstance(each, WeightConverter)
                and len(each.operations) == 1 and isinstance(each.operations[0], Chunk)]

    @property
    def _layers(self) -> nn.ModuleList:
        depth = self.vit.config.num_hidden_layers
        return next(module for module in self.vit.modules()
                    if isinstance(module, nn.ModuleList) and len(module) == depth)

    @property
    def _norm(self) -> nn.Module | None:
        found = (getattr(self.vit, name, None) for name in NORMS)
        return next((norm for norm in found if isinstance(norm, nn.Module)
                     and not isinstance(norm, nn.Identity)), None)


class _Done(Exception):
    """The last layer that is read has run."""


def _create(config: Any, folder: str, dtype: torch.dtype, on_meta: bool) -> nn.Module:
    from transformers import AutoModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING
    if type(config) not in MODEL_MAPPING:
        raise InputError(f"{folder}/config.json: transformers' AutoModel has no network for "
                         f'{config.model_type!r}: expected a vision transformer that it builds, '
                         'e.g. dinov2, dinov3_vit, siglip, clip or internvl')
    config.output_hidden_states = config.output_attentions = False
    try:
        with building(dtype, on_meta):
            vit = AutoModel.from_config(config, dtype=torch.float32,  # of tables of positions
                                        trust_remote_code=False)
    except Exception as error:  # it raises errors of many kinds for values of a config
        raise InputError(f'{folder}/config.json: transformers cannot build the network: '
                         f'{words_of(error)}') from error
    if not any(isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers
               for module in vit.modules()):
        raise no_grid(config, folder)
    return vit.eval()


def _options_of(vit: nn.Module) -> dict[str, Any]:
    """Returns arguments by which the network takes images of any size."""
    parameters = inspect.signature(vit.forward).parameters
    return dict(interpolate_pos_encoding=True) if 'interpolate_pos_encoding' in parameters else {}


def _map_of(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, N, D) -> (B, D, h, w): class and register tokens stand in front."""
    patches = tokens[:, tokens.shape[1] - grid[0] * grid[1]:]
    return patches.transpose(1, 2).unflatten(2, grid)
