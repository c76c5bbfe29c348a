"""What the config of a backbone says, and what its class knows beyond that.

The engine reads options of backbones before anything is built. A backbone whose network follows
from a name has no width or depth in its config; its class tells them, by the class method
``option_of``.
"""
import inspect
from collections.abc import Mapping
from typing import Any

from mmseg.models.builder import BACKBONES

DEFAULT = 'InternViT6B'  # whose defaults hold for backbones that say nothing


def backbone_class(backbone: Mapping[str, Any]) -> Any:
    """Returns the class of a backbone by its options, as a config has them; None if unknown."""
    kind = backbone.get('type')
    kind = BACKBONES.get(kind) if isinstance(kind, str) else kind
    return kind if isinstance(kind, type) else None


def has_frozen_features(backbone: Mapping[str, Any]) -> bool:
    """Returns whether a backbone computes frozen feature maps that heads and caches can share.

    Such a class offers ``frozen_features`` and what belongs to it: docs/adding_backbones.md.

    Args:
        backbone: Its options, as a config has them.
    """
    return hasattr(backbone_class(backbone), 'frozen_features')


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
    defaults = inspect.signature(BACKBONES.get(DEFAULT)).parameters
    if not hasattr(kind, 'option_of'):
        return defaults[name].default
    own = inspect.signature(kind).parameters
    return kind.option_of(backbone, name, (own if name in own else defaults)[name].default)
