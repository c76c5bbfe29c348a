"""Layer-wise learning-rate decay: parameter name -> depth -> optimizer group.

Depth 0 is the embedding, 1..L the blocks, L + 1 everything after them.
"""
from collections import OrderedDict

from mmcv.runner import OPTIMIZER_BUILDERS, DefaultOptimizerConstructor
from torch import nn

from ..errors import InputError
from ..logs import log_details

_EMBEDDINGS = ('backbone.cls_token', 'backbone.pos_embed', 'backbone.mask_token')


def depth_of(name: str, num_layers: int) -> int:
    """Returns the depth of a segmentor's parameter.

    Args:
        name: Parameter name as in the state dict, ``backbone.blocks.3.norm1.weight``.
        num_layers: Number of blocks L of the backbone.
    """
    if name in _EMBEDDINGS or name.startswith('backbone.patch_embed'):
        return 0
    if name.startswith('backbone.blocks.'):
        return int(name.split('.')[2]) + 1
    return num_layers + 1


@OPTIMIZER_BUILDERS.register_module()
class CustomLayerDecayOptimizerConstructor(DefaultOptimizerConstructor):
    """Groups parameters by depth, and by whether they have weight decay.

    The learning rate of depth d is the base rate times ``layer_decay_rate ** (L + 1 - d)`` (Clark
    et al., "ELECTRA", 2020; Bao et al., "BEiT", 2021). Biases, norms and all other vectors have no
    weight decay.

    The class token and the position embedding *do* have weight decay here. The original meant to
    exclude them and compared their names without ``backbone.``; the published results were trained
    that way, so it stays the default. ``paramwise_cfg=dict(decay_embeddings=False)`` excludes them.

    ``paramwise_cfg`` takes ``num_layers`` (L), ``layer_decay_rate``, ``decay_embeddings`` (True).
    """

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '',
                   is_dcn_module: int | float | None = None) -> None:
        """Appends the groups of all trained parameters of ``module`` to ``params``.

        Raises:
            InputError: If one of the settings that it scales is missing.
        """
        for name, given in (('lr', self.base_lr), ('weight_decay', self.base_wd), *(
                (f'paramwise_cfg.{key}', self.paramwise_cfg.get(key))
                for key in ('num_layers', 'layer_decay_rate'))):
            if given is None:
                raise InputError(f'optimizer.{name} is missing from the config, which the '
                                 f'constructor {type(self).__name__} needs')
        num_layers = self.paramwise_cfg['num_layers']
        rate = self.paramwise_cfg['layer_decay_rate']
        decay_embeddings = self.paramwise_cfg.get('decay_embeddings', True)
        groups = OrderedDict()
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            depth = depth_of(name, num_layers)
            excluded = name in _EMBEDDINGS and not decay_embeddings
            decayed = not (parameter.ndim == 1 or name.endswith('.bias') or excluded)
            key = f'layer_{depth}_{"decay" if decayed else "no_decay"}'
            if key not in groups:
                scale = rate ** (num_layers + 1 - depth)
                groups[key] = dict(
                    weight_decay=self.base_wd if decayed else 0.0, params=[], param_names=[],
                    lr_scale=scale, group_name=key, lr=scale * self.base_lr)
            groups[key]['params'].append(parameter)
            groups[key]['param_names'].append(name)
        _log(groups)
        params.extend(groups.values())


def _log(groups: dict[str, dict]) -> None:
    lines = [f'{"group":<20}{"lr":>12}{"decay":>8}{"tensors":>9}{"parameters":>15}']
    for key, group in groups.items():
        count = sum(p.numel() for p in group['params'])
        lines.append(f'{key:<20}{group["lr"]:>12.4g}{group["weight_decay"]:>8g}'
                     f'{len(group["params"]):>9}{count:>15,}')
    log_details('parameter groups\n%s', '\n'.join(lines))
