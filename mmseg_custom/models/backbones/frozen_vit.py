"""Any plain vision transformer of timm or transformers, frozen, as a segmentation backbone.

B batch, D width, H W pixels, h w patch grid.
"""
import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...checkpoint.keys import PYRAMID
from ...checkpoint.lazy import LazyStateDict
from ...checkpoint.load import fill
from ...checkpoint.provenance import set_weights_source, weights_source_of
from ...errors import InputError, refuse_unknown
from ...layers.feature_pyramid import build_pyramid
from ...layers.renormalize import Renormalize
from ..tuning import KEY, Tuning
from .checks import check_out_indices
from .pyramid_backbone import PyramidBackbone
from .upstream_networks import ADVICE, build_network, facts_of, open_network_weights, weights_in
from .upstream_vit import NetworkFacts, UpstreamViT

OWN_WEIGHTS = ''  # those in the folder ``name``
# Mean and standard deviation that the pipelines of the recipes normalise by, of values of 0 to 255.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# Options by which InternViT6B is trained or rounded.
OF_INTERNVIT = ('adapt', 'train_last', 'train_norms', 'unfreeze_pos_embed', 'frozen_dtype',
                'drop_path_rate')
PREFIX = 'model.vit.'  # of the network's own parameter names


class FrozenViT(PyramidBackbone):
    """A plain vision transformer that timm or transformers know, with all weights frozen.

    It computes what the library computes: feature maps are the patch tokens behind a layer, without
    class and register tokens. It stays in eval mode, runs without autograd, and stops behind the
    last layer that is read. Nothing is ever downloaded, and no code of a folder is run.

    Parameters are built in bfloat16, as those of InternViT6B; tables of rotary positions stay in
    float32. Images arrive normalised by the pipeline of the config, and one affine map takes them
    to what the network expects.

    Args:
        name: Name of a network of timm ('vit_large_patch14_dinov2.lvd142m'; the tag behind the dot
            says how its images are normalised), or folder with config.json of transformers or timm.
        pretrained: File or folder with weights, under the library's own names; None for random
            weights. Default: the folder ``name``; random weights for a name of timm. Or a network
            of the same name, whose weights are shared, not copied.
        out_indices: Layers (from 0, ascending) whose tokens become feature maps. Default: the last.
        final_norm: Whether each feature map goes through the norm behind the network's last layer,
            as in the evaluations of DINOv2 and DINOv3 (Oquab et al., "DINOv2", 2023).
        with_fpn: Whether the four feature maps become a pyramid of 4x, 2x, 1x and 1/2 of the grid,
            which is trained: see :mod:`...layers.feature_pyramid`.
        with_final_norm: Whether each level of the pyramid ends with a layer norm over channels.
        mean: Mean that the pipeline's Normalize subtracts, of values of 0 to 255 in RGB.
        std: Standard deviation that it divides by.
        own_mean: Mean that the network expects to be subtracted, of values of 0 to 1. Default: as
            its config says.
        own_std: Standard deviation that it expects.
        overrides: Arguments of timm's constructor, or entries of the vision config of transformers,
            in the place of the network's own, e.g. ``dict(depth=6)``.
        freeze_vit: True, for whatever reads the option.

    Attributes:
        facts: What is known of the network.
        tuning: What is trained of it: nothing.

    Raises:
        InputError: For a network that there is not, or that has no patch grid, options that do not
            fit it, or weights that are not of it.
    """
    frozen_dtype = frozen_record = None
    renormalizes = True
    weights_advice = ADVICE
    is_shardable = False  # FSDP2 would gather the whole network at once, and has nothing to reduce

    def __init__(self, name: str, pretrained: 'str | FrozenViT | None' = OWN_WEIGHTS,
                 out_indices: Sequence[int] | None = None, final_norm: bool = False,
                 with_fpn: bool = False, with_final_norm: bool = False,
                 mean: Sequence[float] = MEAN, std: Sequence[float] = STD,
                 own_mean: Sequence[float] | None = None, own_std: Sequence[float] | None = None,
                 overrides: Mapping[str, Any] | None = None, freeze_vit: bool = True,
                 **unknown):
        super().__init__()
        _refuse_options(freeze_vit, unknown)
        if pretrained == OWN_WEIGHTS:
            pretrained = weights_in(name)
        # A file brings all parameters: they cost no memory until it does.
        on_meta = bool(pretrained) or torch.get_default_device().type == 'meta'
        self.model: UpstreamViT = (
            pretrained.model if isinstance(pretrained, FrozenViT) else
            build_network(name, overrides or {}, torch.bfloat16, on_meta))
        self.facts: NetworkFacts = self.model.facts
        self.out_indices = list([self.facts.depth - 1] if out_indices is None else out_indices)
        check_out_indices(self.out_indices, self.facts.depth, with_fpn)
        if final_norm and not self.facts.has_norm:
            raise InputError(f'{KEY}.final_norm=True: {self.facts.architecture} has no norm behind '
                             'its last layer: leave final_norm out')
        self.final_norm, self.with_fpn, self.freeze_vit = final_norm, with_fpn, True
        self.embed_dim = self.num_features = self.facts.embed_dim
        self.patch_size = self.facts.patch_size
        self.tuning = Tuning.of(self.first_trained, freeze_vit=True)
        self.set_map_format()
        self.own_mean = tuple(own_mean or self.facts.mean)
        self.own_std = tuple(own_std or self.facts.std)
        self.renormalize = Renormalize([x / 255 for x in mean], [x / 255 for x in std],
                                       self.own_mean, self.own_std)
        if with_fpn:
            for level_name, level in build_pyramid(self.embed_dim, with_final_norm).items():
                self.add_module(level_name, level.to(torch.bfloat16))
        self._load(name, pretrained)
        self.train()

    @classmethod
    def option_of(cls, backbone: Mapping[str, Any], name: str, default: Any) -> Any:
        """Returns an option that a config does not say, but the network's name.

        Args:
            backbone: Options, as a config has them.
            name: Name of the option, as InternViT6B has it.
            default: Its value where the network's name does not tell it.

        Raises:
            InputError: If there is no such network.
        """
        if name not in ('embed_dim', 'patch_size', 'depth', 'img_size', 'out_indices',
                        'pretrained'):
            return default
        network = backbone.get('name')
        if not isinstance(network, str):
            raise InputError(f'{KEY}.name={network!r}: expected the name of a network of timm, or '
                             'a folder with config.json')
        if name == 'pretrained':
            return weights_in(network)
        facts = facts_of(network, backbone.get('overrides'))
        return [facts.depth - 1] if name == 'out_indices' else getattr(facts, name)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters."""
        return next(self.model.parameters()).dtype

    @property
    def first_trained(self) -> int:
        """Number of layers that are read: none is trained."""
        return max(self.out_indices) + 1

    first_under_autograd = first_trained

    @property
    def cache_record(self) -> dict[str, Any]:
        """What a key of feature maps says of the network, wherever its files are."""
        return dict(name=self.facts.record, embed_dim=self.embed_dim, depth=self.facts.depth,
                    own_mean=self.own_mean, own_std=self.own_std)

    def open_weights(self, path: str) -> LazyStateDict:
        """Opens a file or folder of weights, under the names of this backbone's parameters.

        Raises:
            InputError: If it cannot be read, or does not hold this network.
        """
        return open_network_weights(self.model, path, PREFIX)[0]

    def train(self, mode: bool = True) -> 'FrozenViT':
        """Sets the training mode of the pyramid; the network stays in eval mode."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, images: Tensor | Sequence[Tensor], before_pyramid: bool = False,
                before_trained: bool = False) -> list[Tensor]:
        """Computes the feature maps.

        Args:
            images: (B, 3, H, W) in the normalisation of the pipeline, or the result of
                :meth:`frozen_features` for them.
            before_pyramid: Whether to leave the pyramid out.
            before_trained: The same, as nothing before the pyramid is trained.

        Returns:
            Maps (B, D, h, w), one for each of ``out_indices``; with the pyramid, four at 4x, 2x, 1x
            and 1/2 of that grid.

        Raises:
            InputError: If the network does not take images of this size.
        """
        if not isinstance(images, Tensor):
            return self._for_heads(self._cast(images), before_pyramid)
        self.facts.check_size(*images.shape[-2:])
        with torch.no_grad():
            features = self.model(self.renormalize(images), self.out_indices, self.final_norm)
        return self._for_heads(features, before_pyramid or before_trained)

    @torch.no_grad()
    def frozen_features(self, images: Tensor) -> list[Tensor]:
        """Computes float32 feature maps (B, D, h, w) before the pyramid: see :meth:`forward`."""
        return self(images, before_pyramid=True)

    def frozen_feature_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """Returns (D, h, w) of each of :meth:`frozen_features` for images of these pixels."""
        grid = (height // self.patch_size, width // self.patch_size)
        return [(self.embed_dim, *grid)] * len(self.out_indices)

    def _load(self, name: str, pretrained: 'str | FrozenViT | None') -> None:
        """Loads the weights, or shares those of another backbone."""
        logger = logging.getLogger('mmseg')
        if isinstance(pretrained, FrozenViT):
            set_weights_source(self, weights_source_of(pretrained))
            return
        if pretrained:
            self._log_normalization(name)
            weights, source = open_network_weights(self.model, pretrained, PREFIX)
            fill(self, weights, may_miss=lambda each: each.startswith(PYRAMID))
            set_weights_source(self, source)
            logger.info('loaded %d tensors of %s from %s', len(weights), self.facts.architecture,
                        pretrained)
        elif not any(parameter.is_meta for parameter in self.parameters()):
            logger.warning('%s has random weights, since %s.pretrained names no file: see '
                           'docs/frozen_vit.md', self.facts.architecture, KEY)

    def _log_normalization(self, name: str) -> None:
        """Logs what images the network expects, and warns where that is a guess."""
        logger, facts = logging.getLogger('mmseg'), self.facts
        logger.info(
            '%s expects images with mean %s and std %s, of 0 to 1: %s', facts.architecture,
            self.own_mean, self.own_std,
            'as the pipeline normalises them' if self.renormalize.is_identity else
            'an affine map takes them there from the normalisation of the pipeline')
        is_own = (self.own_mean, self.own_std) != (facts.mean, facts.std)
        if not facts.names_normalization and not is_own:
            logger.warning('%s has no preprocessor_config.json with image_mean and image_std: mean '
                           'and std are a default, which %s.own_mean and own_std replace', name,
                           KEY)


def _refuse_options(freeze_vit: bool, unknown: Mapping[str, Any]) -> None:
    """Refuses options that are for training the network, and unknown ones."""
    trained = {name: value for name, value in unknown.items() if name in OF_INTERNVIT}
    if not freeze_vit:
        trained['freeze_vit'] = freeze_vit
    for name, value in trained.items():
        if value or name == 'freeze_vit':
            raise InputError(f'{KEY}.{name}={value!r}: a FrozenViT is frozen as it is; InternViT6B '
                             f'alone has this option: leave {name} out')
    known = [name for name in inspect.signature(FrozenViT).parameters if name != 'unknown']
    refuse_unknown(KEY, [name for name in unknown if name not in trained], known)
