"""What the engine asks of a backbone of any class: its options, and what can be done with it.

The engine reads options of backbones before anything is built. A backbone whose network follows
from a name has no width or depth in its config; its class tells them, by the class method
``option_of``. What a class can do it says by class attributes, which :class:`BackboneTraits` lists;
the engine and the doctor ask for these, not for the class.
"""
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from .backbones.pyramid_backbone import PyramidBackbone

DEFAULT = 'InternViT6B'  # whose defaults hold for backbones that say nothing


def backbone_class(backbone: Mapping[str, Any]) -> Any:
    """Returns the class of a backbone by its options, as a config has them; None if unknown."""
    kind = backbone.get('type')
    kind = _registered(kind) if isinstance(kind, str) else kind
    return kind if isinstance(kind, type) else None


def _registered(name: str) -> Any:
    """Returns the class of a name in mmseg's registry, which configs alone have to do with."""
    from mmseg.models.builder import BACKBONES
    return BACKBONES.get(name)


@dataclass(frozen=True)
class BackboneTraits:
    """What can be done with a backbone.

    Attributes:
        is_ours: Whether its class is one of this package, whose options are checked before a run.
        is_internvit: Whether it is an InternViT, with the options of the blocks: ``with_cp``,
            ``use_flash_attn``.
        changes_tokens: Whether trained parts change the tokens between frozen blocks, as those of a
            ViT-Adapter, so that gradients pass these blocks.
        has_frozen_features: Whether it computes frozen feature maps that heads and caches share. It
            then has the method ``frozen_features`` and what docs/adding_backbones.md lists with it.
        is_shardable: Whether FSDP2 takes it.
        image_multiple: Number of pixels that divides the sides of images; None: that of a patch.
        renormalizes: Whether it takes images to a normalisation of its own, from that of the
            pipeline, which its options ``mean`` and ``std`` repeat.
    """
    is_ours: bool
    is_internvit: bool
    changes_tokens: bool
    has_frozen_features: bool
    is_shardable: bool
    image_multiple: int | None
    renormalizes: bool

    @property
    def is_tunable(self) -> bool:
        """Whether any part of its blocks can be trained, by ``adapt`` or ``train_last``."""
        return self.is_internvit and not self.changes_tokens


def traits_of(backbone: Mapping[str, Any] | nn.Module | None) -> BackboneTraits:
    """Returns what can be done with a backbone.

    Args:
        backbone: The backbone, or its options, as a config has them. None, or options of an unknown
            class, have the traits of a module that offers nothing.
    """
    kind = backbone_class(backbone) if isinstance(backbone, Mapping) else type(backbone)
    changes_tokens = getattr(kind, 'changes_tokens', False)
    return BackboneTraits(
        is_ours=kind is not None and issubclass(kind, PyramidBackbone),
        is_internvit=getattr(kind, 'is_internvit', False),
        changes_tokens=changes_tokens,
        has_frozen_features=hasattr(kind, 'frozen_features') and not changes_tokens,
        is_shardable=getattr(kind, 'is_shardable', True),
        image_multiple=getattr(kind, 'image_multiple', None),
        renormalizes=getattr(kind, 'renormalizes', False))


def backbone_option(backbone: Mapping[str, Any], name: str) -> Any:
    """Returns an option of a backbone: of its config, told by its class, or the default.

    Args:
        backbone: Its options, as a config has them.
        name: Parameter of the constructor, or of that of InternViT6B.

    Raises:
        InputError: If the class knows no network of the name that the config has.
    """
    if name in backbone:
        return backbone[name]
    kind = backbone_class(backbone)
    own = inspect.signature(kind).parameters if traits_of(backbone).is_ours else {}
    default = (own if name in own else inspect.signature(_registered(DEFAULT)).parameters)[
        name].default
    return kind.option_of(backbone, name, default) if hasattr(kind, 'option_of') else default
