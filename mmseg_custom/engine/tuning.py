"""What the run of a config, or the runs of its sweep, train of the backbone."""
from collections.abc import Mapping
from inspect import signature
from typing import Any

from mmcv import Config

from ..models.backbone_options import backbone_option
from ..models.decode_heads.plain_mask_head import PlainMaskHead
from ..models.tuning import LAST_BLOCKS, LORA, PARTLY, Tuning, tuning_of


def num_read(backbone: Mapping[str, Any]) -> int:
    """Returns the number of blocks of an InternViT up to the last whose output is read.

    Args:
        backbone: Its options, as a config has them.
    """
    return max(backbone_option(backbone, 'out_indices')) + 1


def num_deferred(model: Mapping[str, Any]) -> int:
    """Returns the number of blocks, the last that are read, which queries of the head pass.

    Args:
        model: Its options, as a config has them.
    """
    head = model.get('decode_head')
    if not isinstance(head, Mapping) or head.get('blocks') != 'backbone':
        return 0
    return head.get('num_blocks', signature(PlainMaskHead).parameters['num_blocks'].default)


def tuning_in(backbone: Mapping[str, Any]) -> Tuning:
    """Returns what is trained of an InternViT.

    Args:
        backbone: Its options, as a config has them.

    Raises:
        InputError: If an option is invalid.
    """
    return Tuning.of(num_read(backbone), **{name: backbone_option(backbone, name) for name in (
        'freeze_vit', 'adapt', 'train_last', 'train_norms')})


def tuning_of_sweep(cfg: Config) -> str:
    """Returns what the runs of a sweep train of the backbone.

    Args:
        cfg: Config with ``sweep``.

    Returns:
        'frozen', 'full', 'lora' or 'last_blocks'.
    """
    tuning = tuning_of(cfg.model.backbone)
    return LAST_BLOCKS if cfg.sweep.get('train_last') and tuning != LORA else tuning


def shares_feature_maps(cfg: Config) -> bool:
    """Returns whether the combinations of a sweep are heads on one pass of a frozen backbone."""
    return tuning_of_sweep(cfg) not in PARTLY
