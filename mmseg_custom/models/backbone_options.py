"""What the config of a backbone says, and what its class knows beyond that.

The engine reads options of backbones before anything is built. A backbone whose network follows
from a name has no width or depth in its config; its class tells them, by the class method
``option_of``.
"""
import inspect
from collections.abc import Mapping
from typing import Any

from mmseg.models.builder import BACKBONES

from .backbones.pyramid_backbone import PyramidBackbone

DEFAULT = 'InternViT6B'  # whose defaults hold for backbones that say nothing


def backbone_class(backbone: Mapping[str, Any]) -> Any:
    """Returns the class of a backbone by its options, as a config has them; None if unknown."""
    kind = backbone.get('type')
    kind = BACKBONES.get(kind) if isinstance(kind, str) else kind
    return kind if isinstance(kind, type) else None


def is_ours(backbone: Mapping[str, Any]) -> bool:
    """Returns whether a backbone is one of this package, by its options, as a config has them."""
    kind = backbone_class(backbone)
    return kind is not None and issubclass(kind, PyramidBackbone)


def has_frozen_features(backbone: Mapping[str, Any]) -> bool:
    """Returns whether a backbone computes frozen feature maps that heads and caches can share.

    Such a class offers ``frozen_features`` and what belongs to it: docs/adding_backbones.md.

    Args:
        backbone: Its options, as a config has them.
    """
    kind = backbone_class(backbone)
    return hasattr(kind, 'frozen_features') and not getattr(kind, 'changes_tokens', False)


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
    own = inspect.signature(kind).parameters if is_ours(backbone) else {}
    default = (own if name in own else inspect.signature(BACKBONES.get(DEFAULT)).parameters)[
        name].default
    return kind.option_of(backbone, name, default) if hasattr(kind, 'option_of') else default
